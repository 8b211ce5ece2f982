"""Several checkpoints in one evaluation: each with its own tokenizer, all on documents that none was trained on."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from small_runs import EVALUATION, extrapolate, make_tokenizer, swap_two, train

from gau_alpha.cli import main

NUMBERS = ("loss", "accuracy", "num_targets", "num_documents", "length")


def reports() -> dict[str, list[dict]]:
    """Rows of all reports below the output folder, by folder."""
    found = Path("out").rglob("extrapolation.json")
    return {path.parent.name: json.loads(path.read_text())["rows"] for path in found}


@pytest.fixture
def two(run, corpus, tmp_path):
    """Two checkpoints whose tokenizers have one size: only their content tells them apart."""
    checkpoints = []
    for kind in ("bpe", "unigram"):
        tokenizer = make_tokenizer(tmp_path / f"{kind}.json", corpus, kind)
        checkpoints.append(train(run, tmp_path, kind, **{"data.init_args.tokenizer": tokenizer}))
    sizes = {torch.load(one)["hyper_parameters"]["config"]["vocab_size"] for one in checkpoints}
    assert len(sizes) == 1
    return checkpoints


def test_each_checkpoint_is_read_with_its_own_tokenizer_and_none_is_compared_across(two, tmp_path, capsys):
    alone = {}
    for checkpoint in two:
        assert extrapolate(checkpoint) == 0
        (rows,) = reports().values()
        alone[checkpoint.parent.parent.name] = [[row[name] for name in NUMBERS] for row in rows]
    old = Path("out/extrapolation.json")
    before = old.read_text()
    swap_two(tmp_path / "unigram.json")  # the second one's file is not needed any more
    methods = ["--methods", "trained", "softmax", "infoscale"]
    capsys.readouterr()
    assert extrapolate(*two, more=methods) == 0
    said = capsys.readouterr().out
    assert "is the report of an earlier evaluation, not of this one" in said
    assert old.read_text() == before
    old.unlink()
    assert said.count("losses of different tokenizers are not comparable") == 2
    found = reports()
    assert len(found) == 2, "a report for each tokenizer, none for both"
    seen = set()
    for folder, rows in found.items():
        names = {row["method"] for row in rows}
        (label,) = {name.split("(")[1].rstrip(")") for name in names}
        trained = [[row[name] for name in NUMBERS] for row in rows if row["method"] == f"trained ({label})"]
        assert trained == alone[label]
        assert {row["tokenizer"].replace(" ", "_") for row in rows} == {folder}
        assert {row["baseline"] for row in rows} == {"", f"trained ({label})"}
        assert {row["group"] for row in rows} == {""}
        seen.add(label)
    assert seen == {"bpe", "unigram"}


def test_a_baseline_counts_for_its_own_tokenizer_alone(two, capsys):
    more = ["--methods", "trained", "infoscale", "--baseline", "infoscale (unigram)"]
    assert extrapolate(*two, more=more) == 0
    baselines = {row["baseline"] for rows in reports().values() for row in rows} - {""}
    assert baselines == {"infoscale (unigram)", "trained (bpe)"}
    capsys.readouterr()
    assert extrapolate(*two, more=["--baseline", "infoscale"]) == 2
    assert "is not evaluated; choose one of" in capsys.readouterr().err


def test_a_second_checkpoint_that_carries_no_tokenizer_is_refused(two, capsys):
    content = torch.load(two[1])
    content["run"]["tokenizer"] = {}
    torch.save(content, "second.ckpt")
    swap_two(Path("unigram.json"))  # the file that it names is another one by now
    capsys.readouterr()
    assert extrapolate(two[0], "second.ckpt") == 2
    assert "second.ckpt was trained with the tokenizer" in capsys.readouterr().err


def test_checkpoints_of_two_splits_are_evaluated_on_what_both_held_out(run, tmp_path, capsys):
    fractions = {"data.init_args.validation_fraction": 0.5}
    one = train(run, tmp_path, "one", **fractions)
    other = train(run, tmp_path, "other", **fractions, **{"data.init_args.split_seed": 3})
    more = ["--max_documents", "12"]
    counts = []
    for checkpoints in ([one], [other], [one, other], [other, one]):
        assert extrapolate(*checkpoints, more=more) == 0
        (rows,) = reports().values()
        counts.append({(row["length"], row["num_documents"]) for row in rows})
    assert counts[2] == counts[3]
    assert max(counts[2])[1] < min(max(counts[0])[1], max(counts[1])[1])


def test_two_recipes_with_two_seeds_each_are_two_groups(run, tmp_path):
    checkpoints = [run.checkpoint, train(run, tmp_path, "again", seed_everything=2)]
    longer = {"trainer.max_steps": 4}
    checkpoints += [train(run, tmp_path, f"longer{seed}", seed_everything=seed, **longer) for seed in (1, 2)]
    assert extrapolate(*checkpoints) == 0
    (rows,) = reports().values()
    members = {}
    for row in rows:
        members.setdefault(row["group"], set()).add(row["method"])
    assert sorted(map(len, members.values())) == [2, 2]


def test_a_parent_of_another_split_counts_as_training(run, tmp_path, caplog):
    fractions = {"data.init_args.validation_fraction": 0.5}
    parent = train(run, tmp_path, "parent", **fractions, **{"data.init_args.split_seed": 3})
    orphan = train(run, tmp_path, "orphan", **fractions)
    child = train(run, tmp_path, "child", **fractions, **{"model.init_from": str(parent)})
    counts = {}
    for checkpoint in (orphan, child):
        assert extrapolate(checkpoint, more=["--max_documents", "12"]) == 0
        (rows,) = reports().values()
        counts[checkpoint] = rows[0]["num_documents"]
    assert 0 < counts[child] < counts[orphan]
    record = torch.load(child)["run"]
    assert record["splits"] == [{"by": "text", "split_seed": 3, "validation_fraction": 0.5}]
    assert record["started_from"]["seen"] == torch.load(parent)["run"]["seen"]
    # and a copy of it as a folder says the same
    assert main(["convert", str(child), "folder", "--weights_only"]) == 0
    said = json.loads(Path("folder/training_data.json").read_text())
    assert [one["split_seed"] for one in said["splits"]] == [0, 3]
    caplog.set_level("INFO")
    caplog.clear()
    grandchild = train(run, tmp_path, "grandchild", **fractions, **{"model.init_from": "folder"})
    assert "held out by split_seed=3" in caplog.text
    assert torch.load(grandchild)["run"]["splits"] == said["splits"]
    assert extrapolate(child, more=["--allow_mismatch", "true"]) == 0
    (rows,) = reports().values()
    assert all("were also trained under another split" in row["note"] for row in rows)


def test_a_resumed_run_remembers_the_split_that_it_began_with(run, tmp_path, capsys):
    schedule = {"class_path": "gau_alpha.training.schedules.Cosine", "init_args": {"final": 0.1}}
    more = {"data.init_args.validation_fraction": 0.5, "model.schedule": schedule, "trainer.max_steps": 91}
    first = train(run, tmp_path, "first_part", **more)
    args = ["fit", "--config", "first_part.yaml", "--ckpt_path", str(first), "--trainer.max_steps", "93"]
    args += ["--data.init_args.split_seed", "3", "--trainer.logger.version", "second", "--allow_mismatch", "true"]
    with pytest.warns(UserWarning, match="split_seed"):
        code = main(args)
    assert code == 0
    second = tmp_path / "run" / "second" / "checkpoints" / "last.ckpt"
    assert {"by": "text", "split_seed": 0, "validation_fraction": 0.5} in torch.load(second)["run"]["splits"]


def test_weights_of_unknown_training_need_a_word(run, tmp_path, capsys):
    assert main(["convert", str(run.checkpoint), "folder", "--weights_only"]) == 0
    Path("folder/training_data.json").unlink()  # as a folder of other software
    child = train(run, tmp_path, "child", **{"model.init_from": "folder"})
    capsys.readouterr()
    assert extrapolate(child) == 2
    assert "comes of weights that do not say which documents" in capsys.readouterr().err
    assert extrapolate(child, more=["--allow_mismatch", "true"]) == 0


def test_what_was_read_is_counted_and_a_resumed_run_goes_on_counting(run, tmp_path):
    seen = torch.load(run.checkpoint)["run"]["seen"]
    assert 11 * 16 < seen["tokens"] <= 12 * 16, "three steps of four rows"
    assert seen["documents"] == 12
    whole = torch.load(train(run, tmp_path, "whole", **{"trainer.max_steps": 6}))["run"]["seen"]
    schedule = {"class_path": "gau_alpha.training.schedules.Cosine", "init_args": {"final": 0.1}}
    saver = {"save_last": True, "every_n_train_steps": 2}
    saver = [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver}]
    train(run, tmp_path, "parts", **{"trainer.max_steps": 2, "model.schedule": schedule, "trainer.callbacks": saver})
    args = ["fit", "--config", "parts.yaml", "--trainer.max_steps", "6", "--auto_resume", "true"]
    assert main(args) == 0
    parts = torch.load(tmp_path / "run" / "parts" / "checkpoints" / "last.ckpt")["run"]["seen"]
    assert parts == whole
    assert whole["documents"] == 24


@pytest.mark.parametrize("command", ["validate", "predict", "extrapolate", "calibrate"])
def test_a_tokenizer_whose_file_is_gone_comes_out_of_the_checkpoint(two, capsys, command):
    options = {
        "extrapolate": EVALUATION,
        "calibrate": ["--length_ratios", "1", "2", "--num_documents", "2"],
        "predict": ["--predictions.output", "p.jsonl"],
    }
    args = [command, *options.get(command, []), "--ckpt_path", str(two[0])]
    Path("bpe.json").rename("elsewhere.json")
    assert main(args) == 0
    capsys.readouterr()
    Path("unigram.json").rename("bpe.json")  # another one in its place is none
    assert main(args) == 2
    assert "was trained with the tokenizer" in capsys.readouterr().err


def test_the_name_of_a_tokenizer_does_not_depend_on_the_order(two, run):
    found = []
    for checkpoints in ([run.checkpoint, two[0]], [two[0], run.checkpoint]):
        assert extrapolate(*checkpoints) == 0
        found.append({rows[0]["tokenizer"]: rows[0]["loss"] for rows in reports().values()})
    assert found[0] == found[1]
    assert "ByteTokenizer utf-8" in found[0]


def test_one_checkpoint_given_twice_does_not_pass_for_two_seeds(run, capsys):
    Path("copy.ckpt").write_bytes(run.checkpoint.read_bytes())
    content = torch.load(run.checkpoint)
    content["state_dict"] = {name: tensor + 0 for name, tensor in content["state_dict"].items()}
    content["note"] = "another file, the same step of the same run"
    torch.save(content, "saved_again.ckpt")
    for other in ("copy.ckpt", "saved_again.ckpt", run.checkpoint):
        capsys.readouterr()
        assert extrapolate(run.checkpoint, other) == 2
        error = capsys.readouterr().err
        assert "are of the same run at the same step" in error or "more than once" in error


def test_folders_are_held_to_what_they_say_and_pass_for_no_seeds(run, tmp_path, capsys):
    """Two exported runs of different length: a folder does not say how they were trained."""
    longer = train(run, tmp_path, "longer", **{"trainer.max_steps": 4})
    for name, checkpoint in (("short", run.checkpoint), ("long", longer)):
        assert main(["convert", str(checkpoint), name, "--weights_only"]) == 0
    data = yaml.safe_load(run.config.read_text())["data"]
    Path("data.yaml").write_text(yaml.safe_dump(data))
    more = ["--data", "data.yaml"]
    assert extrapolate("short", "long", more=more) == 0
    (rows,) = reports().values()
    assert {row["group"] for row in rows} == {""}
    capsys.readouterr()
    assert extrapolate("short", more=[*more, "--data.split_seed", "3"]) == 2
    assert "None of the 12 documents is held out both here and by what was trained with split_seed=0" in (
        capsys.readouterr().err
    )
