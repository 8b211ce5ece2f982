"""A checkpoint knows which tokenizer and which training its weights come from; what contradicts it is refused."""

import copy
from pathlib import Path

import pytest
import torch
import yaml
from small_runs import EVALUATION, extrapolate, make_tokenizer, results, swap_two, train

from gau_alpha.cli import main

QUIET = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]


@pytest.mark.parametrize("command", ["validate", "test", "predict", "extrapolate", "calibrate", "fit"])
def test_a_tokenizer_that_changed_in_place_is_refused(run, corpus, tmp_path, capsys, command):
    tokenizer = make_tokenizer(tmp_path / "t.json", corpus, "bpe")
    checkpoint = train(run, tmp_path, "own", **{"data.init_args.tokenizer": tokenizer})
    options = {
        "extrapolate": EVALUATION,
        "calibrate": ["--length_ratios", "1", "2", "--num_documents", "2"],
        "predict": [*QUIET, "--predictions.output", "p.jsonl"],
        "fit": ["--config", str(tmp_path / "own.yaml"), "--trainer.max_steps", "4"],
    }
    args = [command, *options.get(command, QUIET), "--ckpt_path", str(checkpoint)]
    swap_two(tmp_path / "t.json")
    capsys.readouterr()
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "was trained with the tokenizer" in error
    assert "--allow_mismatch" in error
    with pytest.warns(UserWarning, match="was trained with the tokenizer"):
        # training does not go on with other rows, whatever is allowed
        assert main([*args, "--allow_mismatch", "true"]) == (2 if command == "fit" else 0)
    if command == "extrapolate":
        assert all("was trained with the tokenizer" in row["note"] for row in results())


def test_a_checkpoint_fills_masks_with_its_own_tokenizer(run, corpus, tmp_path, capsys):
    tokenizer = make_tokenizer(tmp_path / "t.json", corpus, "bpe")
    checkpoint = train(run, tmp_path, "own", **{"data.init_args.tokenizer": tokenizer})
    args = ["fill-mask", "--model", str(checkpoint), "--json", "ab[MASK]d"]
    capsys.readouterr()
    assert main(args) == 0
    before = capsys.readouterr().out
    swap_two(tmp_path / "t.json")
    assert main(args) == 0
    assert capsys.readouterr().out == before


def test_the_same_tokenizer_in_another_place_is_the_same(run, tmp_path):
    """Bytes as the run had them, and as the library reads them from the exported folder."""
    assert main(["convert", str(run.checkpoint), "folder"]) == 0
    init_args = {"path": "folder/tokenizer.json", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    data = yaml.safe_load(run.config.read_text())["data"]
    data["init_args"]["tokenizer"] = {"class_path": "datamodules.TokenizerFile", "init_args": init_args}
    Path("data.yaml").write_text(yaml.safe_dump(data))
    assert main(["validate", "--ckpt_path", str(run.checkpoint), "--data", "data.yaml", *QUIET]) == 0


def test_a_checkpoint_that_does_not_say_its_tokenizer_needs_a_word(run, tmp_path, capsys):
    content = torch.load(run.checkpoint)
    for name in ("tokenizer", "tokenizer_fingerprint"):
        del content["run"][name]
    torch.save(content, "silent.ckpt")
    capsys.readouterr()
    assert extrapolate("silent.ckpt") == 2
    assert "does not say which tokenizer" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="does not say which tokenizer"):
        assert extrapolate("silent.ckpt", more=["--allow_mismatch", "true"]) == 0
    assert all("does not say which tokenizer" in row["note"] for row in results())


def test_runs_are_summed_up_only_if_they_differ_in_seeds_and_names_alone(run, tmp_path):
    def groups(*checkpoints):
        assert extrapolate(*checkpoints) == 0
        return {row["group"] for row in results()}

    again = train(run, tmp_path, "again", seed_everything=2)
    assert groups(run.checkpoint, again) == {"trained"}
    longer = train(run, tmp_path, "longer", **{"trainer.max_steps": 4})
    assert groups(run.checkpoint, longer) == {""}
    larger = train(run, tmp_path, "larger", **{"data.init_args.batch_size": 3})
    assert groups(run.checkpoint, larger) == {""}
    rate = {"class_path": "AdamW", "init_args": {"learning_rate": 0.01}}
    faster = train(run, tmp_path, "faster", **{"model.optimizer": rate})
    assert groups(run.checkpoint, faster) == {""}


def test_a_checkpoint_says_what_data_it_was_trained_on(run):
    data = torch.load(run.checkpoint)["run"]["data"]
    assert data["split"] == {"by": "text", "split_seed": 0, "validation_fraction": 0.1}
    assert data["corpus"]["documents"] == 12
    assert len(data["corpus"]["sha256"]) == 64


def test_a_recipe_is_plain_data_of_a_hostile_record(run):
    """Whatever stands in the place of the record: no exception, and equal only to itself."""
    content = torch.load(run.checkpoint)
    for wrong in (7, [], "x", {"config": 3}, {"config": {"trainer": [], "data": None}, "world": 1}):
        spoiled = copy.deepcopy(content) | {"run": wrong}
        torch.save(spoiled, "spoiled.ckpt")
        assert main(["extrapolate", "--ckpt_path", "spoiled.ckpt", *EVALUATION]) == 2
