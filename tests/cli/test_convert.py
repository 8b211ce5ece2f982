"""Checkpoints become folders and folders checkpoints, and nothing is lost on the way."""

import hashlib
import json
from collections import OrderedDict

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_runs import train

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM, GAUAlphaModule
from gau_alpha.cli import main
from gau_alpha.scaling import LogLength


def read(path):
    return torch.load(path, weights_only=True)


def assert_same(left, right):
    """Equal to the last bit, through all containers."""
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for ours, theirs in zip(left, right, strict=True):
            assert_same(ours, theirs)
    elif isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    else:
        assert left == right


@pytest.fixture
def there(run, tmp_path):
    """The run's checkpoint as a folder."""
    assert main(["convert", str(run.checkpoint), str(tmp_path / "there")]) == 0
    return tmp_path / "there"


def test_there_and_back_every_entry_is_the_same(run, there, tmp_path):
    names = {"config.json", "model.safetensors", "modeling_gau_alpha.py", "README.md"}
    names |= {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in there.iterdir()} == names | {"training_state.ckpt", "training_data.json"}
    assert main(["convert", str(there), str(tmp_path / "back.ckpt")]) == 0
    assert_same(read(run.checkpoint), read(tmp_path / "back.ckpt"))


def test_half_precision_stays_as_it_is(run, tmp_path):
    checkpoint = read(run.checkpoint)
    checkpoint["state_dict"] = OrderedDict((name, x.bfloat16()) for name, x in checkpoint["state_dict"].items())
    torch.save(checkpoint, tmp_path / "half.ckpt")
    assert main(["convert", str(tmp_path / "half.ckpt"), str(tmp_path / "half")]) == 0
    assert main(["convert", str(tmp_path / "half"), str(tmp_path / "back.ckpt")]) == 0
    assert_same(checkpoint, read(tmp_path / "back.ckpt"))


def test_the_folder_gives_the_checkpoints_logits(run, there):
    ours = GAUAlphaModule.load_from_checkpoint(run.checkpoint).model.eval()
    theirs = GAUAlphaForMaskedLM.from_pretrained(there)
    ids = torch.randint(0, 256, (2, 40))
    with torch.no_grad():
        assert torch.equal(ours(ids), theirs(ids))
    stored = json.loads((there / "config.json").read_text())
    assert (stored["train_length"], stored["max_position_embeddings"], stored["pad_token_id"]) == (16, 16, 256)


def resume(run, checkpoint, folder):
    """Train from step 3 to step 6."""
    config = yaml.safe_load(run.config.read_text())
    config["trainer"] |= {"max_steps": 6, "default_root_dir": str(folder)}
    config["trainer"]["logger"]["init_args"] |= {"save_dir": str(folder)}
    # With a rate that had fallen to 0 there would be nothing to go on with.
    config["model"]["schedule"] = {"class_path": "gau_alpha.training.schedules.Linear", "init_args": {"final": 0.5}}
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(path), "--ckpt_path", str(checkpoint)]) == 0
    return read(folder / "run" / "first" / "checkpoints" / "last.ckpt")


def test_a_resumed_run_does_not_notice_the_round_trip(run, there, tmp_path):
    assert main(["convert", str(there), str(tmp_path / "back.ckpt")]) == 0
    direct = resume(run, run.checkpoint, tmp_path / "direct")
    around = resume(run, tmp_path / "back.ckpt", tmp_path / "around")
    assert direct["global_step"] == around["global_step"] == 6
    assert not torch.equal(
        *(one["state_dict"]["model.cls.predictions.decoder.weight"] for one in (direct, read(run.checkpoint)))
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "loops"):
        assert_same(direct[part], around[part])


def test_a_run_whose_rate_has_fallen_to_nothing_is_not_gone_on_with(run, capsys):
    assert (
        main(["fit", "--config", str(run.config), "--trainer.max_steps", "6", "--ckpt_path", str(run.checkpoint)]) == 2
    )
    assert "with a learning rate of 0" in capsys.readouterr().err


def test_without_a_training_state_it_can_be_evaluated_but_not_resumed(run, tmp_path, capsys):
    assert main(["convert", str(run.checkpoint), str(tmp_path / "lean"), "--weights_only", "--license", "mit"]) == 0
    assert not (tmp_path / "lean/training_state.ckpt").exists()
    assert main(["convert", str(tmp_path / "lean"), str(tmp_path / "lean.ckpt")]) == 0
    ours, theirs = read(run.checkpoint), read(tmp_path / "lean.ckpt")
    assert_same(dict(ours["state_dict"]), dict(theirs["state_dict"]))
    assert theirs["hyper_parameters"]["train_length"] == 16
    # a folder does not say what was held out
    validate = ["validate", "--config", str(run.config), "--trainer.logger", "false", "--allow_mismatch", "true"]
    assert main([*validate, "--ckpt_path", str(tmp_path / "lean.ckpt")]) == 0
    out = [line for line in capsys.readouterr().out.splitlines() if "perplexity" in line]
    assert main([*validate, "--ckpt_path", str(run.checkpoint)]) == 0
    assert out
    assert out == [line for line in capsys.readouterr().out.splitlines() if "perplexity" in line]
    fresh = ["--trainer.logger.save_dir", str(tmp_path), "--allow_mismatch", "true"]
    assert main(["fit", "--config", str(run.config), *fresh, "--ckpt_path", str(tmp_path / "lean.ckpt")]) == 2
    assert "--model.init_from" in capsys.readouterr().err


def test_training_starts_from_a_folder(run, there, tmp_path):
    args = ["fit", "--config", str(run.config), "--trainer.logger.save_dir", str(tmp_path), "--trainer.max_steps", "1"]
    assert main([*args, "--model.init_from", str(there), "--model.optimizer.learning_rate", "1e-12"]) == 0
    started = read(tmp_path / "run/first/checkpoints/last.ckpt")
    trained = read(run.checkpoint)["state_dict"]
    for name, tensor in started["state_dict"].items():
        torch.testing.assert_close(tensor, trained[name], atol=1e-9, rtol=0)
    assert started["run"]["config"]["model"]["init_from"] == str(there)
    # evaluating its checkpoint needs no folder
    there.rename(tmp_path / "gone")
    assert main(["validate", "--ckpt_path", str(tmp_path / "run/first/checkpoints/last.ckpt")]) == 0


def test_a_model_card_says_what_it_is(run, tmp_path):
    results = {
        "rows": [
            {"method": "trained", "length": 16, "status": "ok", "perplexity": 12.345, "protocol": "mlm"},
            {"method": "trained", "length": 64, "status": "no documents", "perplexity": None, "protocol": "mlm"},
        ]
    }
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.ckpt").write_bytes(run.checkpoint.read_bytes())
    digest = hashlib.sha256((tmp_path / "run/checkpoints/last.ckpt").read_bytes()).hexdigest()
    results["run"] = {"checkpoints_sha256": {"trained": digest}}
    (tmp_path / "run/extrapolation.json").write_text(json.dumps(results))
    args = ["convert", str(tmp_path / "run/checkpoints/last.ckpt"), str(tmp_path / "tiny")]
    assert main([*args, "--license", "cc-by-4.0"]) == 0
    card = (tmp_path / "tiny/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-4.0"
    for words in ("# tiny", "16 tokens", "| similarity | `DotProduct()` |", "datamodules.ByteTokenizer", "| 16 | 64 |"):
        assert words in card
    assert "| trained | 12.35 | no documents |" in card or "| trained | 12.34 | no documents |" in card
    assert str(run.folder.parent) not in card
    results["rows"][0]["note"] = "measured in haste"
    results["rows"].append({**results["rows"][0], "method": "infoscale", "note": ""})
    results["run"]["checkpoints_sha256"]["infoscale"] = "of another checkpoint"
    (tmp_path / "run/extrapolation.json").write_text(json.dumps(results))
    assert main([*args, "--overwrite"]) == 0
    card = (tmp_path / "tiny/README.md").read_text()
    assert "- trained: measured in haste" in card
    assert "infoscale" not in card
    del results["run"]  # which does not say what was measured
    (tmp_path / "run/extrapolation.json").write_text(json.dumps(results))
    assert main([*args, "--overwrite"]) == 0
    assert "Past its training length" not in (tmp_path / "tiny/README.md").read_text()


def test_a_published_folder_becomes_a_checkpoint(tmp_path):
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "attention_key_size": 8}
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(**sizes, num_hidden_layers=2), AttentionMethod(None, LogLength(512)))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(weights, folder / "pytorch_model.bin")
    fields = {**sizes, "num_hidden_layers": 2, "normalization": "softmax_plus", "model_type": "gau_alpha"}
    (folder / "config.json").write_text(json.dumps(fields))
    args = ["convert", str(folder), str(tmp_path / "published.ckpt")]
    assert main(args) == 2  # nothing says train_length
    assert main([*args, "--train_length", "32"]) == 0
    module = GAUAlphaModule.load_from_checkpoint(tmp_path / "published.ckpt")
    assert module.train_length == 32
    assert module.model.method.describe() == model.method.describe()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.model.state_dict().items())
    assert main(["convert", str(tmp_path / "published.ckpt"), str(tmp_path / "again")]) == 0
    again = load_file(tmp_path / "again/model.safetensors")
    assert again.keys() == weights.keys() - {"cls.predictions.decoder.weight"}  # tied: stored once
    assert all(torch.equal(again[name], weights[name]) for name in again)


@pytest.mark.parametrize("change", ["weights", "method", "pickle"])
def test_a_training_state_of_another_model_is_refused(there, tmp_path, capsys, change):
    if change == "weights":
        weights = load_file(there / "model.safetensors")
        weights["gau_alpha.encoder.layer.0.gau.q_scaleoffset.weight"] += 1
        save_file(weights, there / "model.safetensors")
    elif change == "method":
        stored = json.loads((there / "config.json").read_text())
        del stored["attention_method"]
        (there / "config.json").write_text(json.dumps(stored | {"normalization": "softmax_plus"}))
    else:
        torch.save({"state_dict": print, "hyper_parameters": {}}, there / "training_state.ckpt")
    args = ["convert", str(there), str(tmp_path / "back.ckpt")]
    assert main(args) == 2
    assert "training_state.ckpt" in capsys.readouterr().err
    assert not (tmp_path / "back.ckpt").exists()
    assert main([*args, "--weights_only"]) == 0


def test_nothing_is_replaced_unasked(run, there, tmp_path, capsys):
    args = ["convert", str(run.checkpoint), str(there)]
    assert main(args) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*args, "--overwrite", "--weights_only"]) == 0
    assert not (there / "training_state.ckpt").exists()  # of the folder that was replaced
    (tmp_path / "taken.ckpt").write_text("precious")
    assert main(["convert", str(there), str(tmp_path / "taken.ckpt")]) == 2
    assert (tmp_path / "taken.ckpt").read_text() == "precious"


@pytest.mark.parametrize(
    ("source", "destination", "more", "words"),
    [
        ("{run}", "{tmp}/x.ckpt", [], ["x.ckpt", "becomes a folder"]),
        ("{tmp}/there", "{tmp}/x", [], ["must end in .ckpt"]),
        ("{tmp}/nowhere.ckpt", "{tmp}/x", [], ["There is no checkpoint", "nowhere.ckpt"]),
        ("{tmp}", "{tmp}/x.ckpt", [], ["is no model folder", "config.json"]),
        ("{run}", "{tmp}/x", ["--train_length", "16"], ["--train_length is for folders"]),
        ("{run}", "{tmp}/x", ["--license", "do what\nyou want"], ["licence must be an identifier"]),
        ("{tmp}/there", "{tmp}/x.ckpt", ["--train_length", "0"], ["--train_length is 0", "1 or more"]),
        ("{tmp}/there", "{tmp}/x.ckpt", ["--train_length", "32"], ["--train_length is 32", "16 tokens"]),
    ],
)
def test_mistakes(run, there, tmp_path, capsys, source, destination, more, words):
    names = {"run": run.checkpoint, "tmp": tmp_path}
    assert main(["convert", source.format(**names), destination.format(**names), *more]) == 2
    error = capsys.readouterr().err
    assert not [word for word in words if word not in error], error
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.ckpt").exists()


def test_a_checkpoint_that_names_a_strangers_class_is_refused(run, tmp_path, capsys):
    """Nothing but our own classes is built from what a file says."""
    checkpoint = read(run.checkpoint)
    (tmp_path / "evil_words.py").write_text("raise SystemExit('imported')")
    checkpoint["run"]["config"]["data"]["init_args"]["tokenizer"] = {"class_path": "evil_words.Tokenizer"}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    assert main(["convert", str(tmp_path / "other.ckpt"), str(tmp_path / "other")]) == 2
    assert "--trust evil_words.Tokenizer" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def extrapolate(path, output, data, *more):
    args = ["extrapolate", "--ckpt_path", str(path), "--output_dir", output, "--data", str(data), *more]
    return main([*args, "--methods", "trained", "infoscale", "--length_ratios", "1", "4", "--max_documents", "4"])


@pytest.fixture
def data(run, tmp_path):
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(run.config.read_text())["data"]))
    return path


def test_a_folder_is_evaluated_as_it_is(run, there, data, tmp_path):
    """As the checkpoint that it was made of. One of other software does not say what it was trained on: a warning."""
    assert extrapolate(run.checkpoint, "of_checkpoint", data) == 0
    assert extrapolate(there, "of_folder", data) == 0
    (there / "training_data.json").unlink()
    with pytest.warns(UserWarning, match="there does not say what it was trained on"):
        assert extrapolate(there, "of_another", data) == 0
    tables = [
        json.loads((tmp_path / name / "extrapolation.json").read_text()) for name in ("of_checkpoint", "of_folder")
    ]
    results = [[(row["method"], row["length"], row["loss"], row["accuracy"]) for row in one["rows"]] for one in tables]
    assert results[0] == results[1]
    assert len(results[0]) == 4
    assert {row["note"] for row in tables[1]["rows"]} == {row["note"] for row in tables[0]["rows"]}


def test_a_folder_whose_tokenizer_is_another_is_refused(run, there, data, capsys):
    content = yaml.safe_load(data.read_text())
    content["init_args"]["tokenizer"] = "datamodules.CharacterTokenizer"
    data.write_text(yaml.safe_dump(content))
    assert extrapolate(there, "of_folder", data) == 2
    assert "there carries another tokenizer than the data" in capsys.readouterr().err


def test_what_of_a_folder_can_not_be_evaluated_is_said(run, there, data, tmp_path, capsys):
    assert main(["extrapolate", "--ckpt_path", str(there)]) == 2
    assert "needs data: give --data FILE" in capsys.readouterr().err
    stored = json.loads((there / "config.json").read_text())
    del stored["train_length"], stored["max_position_embeddings"]
    (there / "config.json").write_text(json.dumps(stored))
    assert extrapolate(there, "of_folder", data) == 2
    assert "does not say how many tokens its training rows had" in capsys.readouterr().err
    assert main(["fit", "--config", str(run.config), "--ckpt_path", str(there)]) == 2
    assert "is a Hugging Face folder, no checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_of_an_alphabet_is_evaluated_and_filled_in(run, data, tmp_path, capsys):
    """Its tokenizer has no file of its own; the folder gets one."""
    content = yaml.safe_load(data.read_text())
    content["init_args"]["tokenizer"] = {
        "class_path": "datamodules.CharacterTokenizer",
        "init_args": {"characters": "abcdefgh "},
    }
    data.write_text(yaml.safe_dump(content))
    checkpoint = train(run, tmp_path, "letters", data=content)
    assert main(["convert", str(checkpoint), "letters"]) == 0
    assert (tmp_path / "letters/tokenizer.json").is_file()
    tables = []
    for name, path in (("of_checkpoint", checkpoint), ("of_folder", tmp_path / "letters")):
        assert extrapolate(path, name, data) == 0
        rows = json.loads((tmp_path / name / "extrapolation.json").read_text())["rows"]
        tables.append([(row["length"], row["loss"]) for row in rows])
        capsys.readouterr()
        assert main(["fill-mask", "ab[MASK]d", "--model", str(path)]) == 0
        tables.append(capsys.readouterr().out.splitlines()[-5:])
    assert tables[:2] == tables[2:]
