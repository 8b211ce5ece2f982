"""The commands as a user types them."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from gau_alpha.cli import COMMANDS, main
from gau_alpha.cli.lightning import gather_lists
from gau_alpha.cli.shipped import with_shipped_files
from gau_alpha.presets import preset_names
from gau_alpha.scaling import InfoScale, NoScaling
from gau_alpha.similarity import CosScale

FEW = ["--length_ratios", "1", "4", "--max_documents", "2"]


@pytest.fixture
def used(monkeypatch):
    """Which scalings compute temperatures, and which similarities prepare queries."""
    seen = set()
    for cls, name in ((InfoScale, "temperature"), (NoScaling, "temperature"), (CosScale, "prepare")):
        original = getattr(cls, name)

        def record(self, *args, original=original, cls=cls):
            seen.add(cls.__name__)
            return original(self, *args)

        monkeypatch.setattr(cls, name, record)
    return seen


def test_fit_leaves_config_record_and_checkpoint(run):
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["config"]["hidden_size"] == 16
    assert config["seed_everything"] == 1
    record = json.loads((run.folder / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] or record["versions"]["torch"]
    assert {"command", "python", "platform", "versions", "git"} <= record.keys()
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert checkpoint["run"]["config"]["data"]["init_args"]["train_length"] == 16
    assert checkpoint["global_step"] == 3


def test_a_second_run_in_the_folder_overwrites_no_config(run, tmp_path):
    args = ["fit", "--config", str(run.config), "--trainer.max_steps", "1", "--trainer.callbacks", "[]"]
    args += ["--trainer.logger.save_dir", str(tmp_path)]
    assert main(args) == 0
    first = (tmp_path / "run/first/config.yaml").read_text()
    assert main([*args, "--model.learning_rate", "0.5"]) == 0
    assert (tmp_path / "run/first/config.yaml").read_text() == first
    again = yaml.safe_load((tmp_path / "run/first/config_1.yaml").read_text())
    assert again["model"]["learning_rate"] == 0.5


def test_the_saved_config_runs_again(run, tmp_path):
    args = ["fit", "--config", str(run.folder / "config.yaml"), "--trainer.logger.save_dir", str(tmp_path)]
    assert main(args) == 0
    weights = [
        torch.load(path, weights_only=True)["state_dict"]
        for path in (run.checkpoint, tmp_path / "run/first/checkpoints/last.ckpt")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_extrapolate_needs_nothing_but_the_checkpoint(run, tmp_path, capsys):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "trained", "infoscale"]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    assert [(row["method"], row["length"]) for row in content["rows"]] == [
        ("trained", 16),
        ("infoscale", 16),
        ("trained", 64),
        ("infoscale", 64),
    ]
    at = {(row["method"], row["length"]): row for row in content["rows"]}
    assert at["trained", 16]["loss"] == at["infoscale", 16]["loss"]  # τ(train_length) = 1
    assert at["trained", 64]["loss"] != at["infoscale", 64]["loss"]
    assert all(row["status"] == "ok" and row["num_targets"] > 0 for row in content["rows"])
    for suffix in ("csv", "md", "png"):
        assert (tmp_path / f"extrapolation.{suffix}").stat().st_size > 0
    assert "infoscale" in capsys.readouterr().out


def test_a_method_for_another_similarity_is_flagged(run, tmp_path):
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "softmax", "cosscale"]) == 0
    notes = {row["method"]: row["note"] for row in json.loads((tmp_path / "extrapolation.json").read_text())["rows"]}
    assert "similarity" in notes["cosscale"]
    assert "similarity" not in notes["softmax"]


def test_several_checkpoints_in_one_table(run, tmp_path):
    common = ["--trainer.logger.save_dir", str(tmp_path), "--trainer.logger.version", "cosine"]
    assert main(["fit", "--config", str(run.config), *common, "--model.method", "cosscale"]) == 0
    other = tmp_path / "run/cosine/checkpoints/last.ckpt"
    args = ["extrapolate", "--ckpt_path", str(run.checkpoint), str(other), *FEW, "--output_dir", str(tmp_path)]
    assert main([*args, "--methods", "softmax", "cosscale_infoscale", "windowed"]) == 0
    content = json.loads((tmp_path / "extrapolation.json").read_text())
    methods = {row["method"] for row in content["rows"]}
    assert methods == {"softmax", "cosscale_infoscale", "windowed (first)", "windowed (cosine)"}
    assert content["run"]["checkpoints"]["softmax"] == str(run.checkpoint)
    assert content["run"]["checkpoints"]["cosscale_infoscale"] == str(other)


@pytest.mark.parametrize("asked", ["flag", "yaml", "preset"])
@pytest.mark.parametrize("command", ["validate", "extrapolate"])
def test_the_method_asked_for_is_the_one_that_runs(run, tmp_path, used, command, asked):
    """LightningCLI by itself lets the checkpoint win, which would fake every training-free result."""
    ways = {
        "flag": ["--model.method.scaling", "InfoScale"],
        "yaml": ["--config", str(tmp_path / "asked.yaml")],
        "preset": ["--model.method", "infoscale"],
    }
    (tmp_path / "asked.yaml").write_text("model: {method: {scaling: gau_alpha.scaling.InfoScale}}\n")
    args = [command, *ways[asked], "--ckpt_path", str(run.checkpoint)]
    args += ["--methods", "trained", *FEW, "--output_dir", str(tmp_path)] if command == "extrapolate" else []
    assert main(args) == 0
    assert "InfoScale" in used
    assert "NoScaling" not in used


def test_the_method_asked_for_runs_under_a_keyword_path(run, used):
    # Lightning finds last.ckpt in the folder of the config's ModelCheckpoint.
    callback = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": str(run.checkpoint.parent), "save_last": True},
    }
    args = ["validate", "--config", str(run.config), "--ckpt_path", "last"]
    args += ["--trainer.callbacks", json.dumps([callback])]
    assert main([*args, "--model.method.scaling", "InfoScale"]) == 0
    assert "InfoScale" in used
    assert "NoScaling" not in used


def test_without_being_asked_the_checkpoints_method_runs(run, tmp_path, used):
    fit = ["fit", "--config", str(run.config), "--trainer.logger.save_dir", str(tmp_path)]
    assert main([*fit, "--model.method.similarity", "CosScale", "--model.method.scaling", "InfoScale"]) == 0
    used.clear()
    validate = ["validate", "--ckpt_path", str(tmp_path / "run/first/checkpoints/last.ckpt")]
    validate += ["--trainer.logger", "false"]
    assert main(validate) == 0
    assert used == {"CosScale", "InfoScale"}
    used.clear()
    # asking for one axis leaves the others as trained
    assert main([*validate, "--model.method.scaling", "NoScaling"]) == 0
    assert used == {"CosScale", "NoScaling"}


def test_methods_lists_every_preset(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == preset_names()


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", ["fit", "extrapolate", "methods"])
def test_every_command_has_help(command):
    done = subprocess.run([sys.executable, "-m", "gau_alpha.cli", command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "usage:" in done.stdout


def test_lists_are_gathered():
    args = ["extrapolate", "--methods", "a", "b", "--seed", "3", "--length_ratios", "1", "--ckpt_path=x"]
    assert gather_lists(args) == [
        "extrapolate",
        "--methods=[a,b]",
        "--seed",
        "3",
        "--length_ratios=[1]",
        "--ckpt_path=x",
    ]


def test_shipped_files_are_found_by_name_and_the_users_own_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = with_shipped_files(["fit", "--config", "demo.yaml", "--model.method=infoscale", "--data", "mine.yaml"])
    assert args[2].endswith("configs/demo.yaml")
    assert args[3].endswith("configs/method/infoscale.yaml")
    assert args[5] == "mine.yaml"
    (tmp_path / "demo.yaml").write_text("")
    assert with_shipped_files(["--config", "demo.yaml"])[1] == "demo.yaml"
