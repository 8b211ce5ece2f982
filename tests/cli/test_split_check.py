"""A checkpoint is evaluated on documents that it was not trained on, or the command says so."""

import pytest
import torch

from gau_alpha.cli import main
from gau_alpha.cli.record import RUN_KEY

SMALL = ["--trainer.accelerator", "cpu"]


def evaluate(run, command: str, *more: str) -> int:
    options = ["--methods", "trained", "--length_ratios", "1"] if command == "extrapolate" else []
    options = ["--length_ratios", "1", "--output", "table.json"] if command == "calibrate" else options
    return main([command, "--ckpt_path", str(run.checkpoint), *SMALL, *options, *more])


@pytest.mark.parametrize("command", ["extrapolate", "validate", "calibrate"])
@pytest.mark.parametrize(
    ("name", "value", "trained"), [("validation_fraction", "0.5", "0.1"), ("split_seed", "1", "0")]
)
def test_another_split_is_refused_with_both_values(run, capsys, command: str, name: str, value: str, trained: str):
    assert evaluate(run, command, f"--data.init_args.{name}", value) == 2
    error = capsys.readouterr().err
    assert f"was trained with {name}={trained}, but the data has {name}={value}" in error
    assert "--allow_mismatch true" in error


def test_a_smaller_fraction_and_another_seed_of_training_are_evaluated(run):
    more = ["--data.init_args.validation_fraction", "0.05", "--data.init_args.seed", "3"]
    assert evaluate(run, "validate", *more) == 0


def test_one_may_say_that_it_is_meant(run):
    more = ["--data.init_args.validation_fraction", "0.5", "--allow_mismatch", "true"]
    assert evaluate(run, "extrapolate", *more) == 0


def test_a_resumed_run_does_not_train_on_what_it_held_out(run, capsys):
    arguments = ["fit", "--config", str(run.config), "--ckpt_path", str(run.checkpoint), "--trainer.max_steps", "4"]
    assert main([*arguments, "--data.init_args.split_seed", "1"]) == 2
    assert "was trained with split_seed=0, but the data has split_seed=1" in capsys.readouterr().err


def test_a_checkpoint_that_says_no_split_is_refused(run, tmp_path, capsys):
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    del checkpoint[RUN_KEY]["config"]["data"]["init_args"]["split_seed"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert main(["validate", "--ckpt_path", str(tmp_path / "old.ckpt"), *SMALL]) == 2
    assert "does not say which documents it held out by their text" in capsys.readouterr().err


def test_files_that_are_cut_into_other_documents_are_refused(run, capsys):
    """Lines of a file that was trained on are documents of their own, which nobody held out."""
    more = ["--data.init_args.source.init_args.per_line", "true"]
    for command in ("extrapolate", "validate"):
        capsys.readouterr()
        assert evaluate(run, command, *more) == 2
        assert "on these files with per_line=False, but the data has per_line=True" in capsys.readouterr().err
    assert evaluate(run, "extrapolate", *more, "--allow_mismatch", "true") == 0
