"""Runs that start from other weights: they take sizes and method from there, and never need them again."""

import shutil

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaModule
from gau_alpha.cli import main
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale


@pytest.fixture
def folder(run, tmp_path):
    """The run's model as a Hugging Face folder."""
    assert main(["convert", str(run.checkpoint), str(tmp_path / "folder"), "--weights_only"]) == 0
    return tmp_path / "folder"


@pytest.fixture
def started(run, folder, tmp_path):
    """A run that started from the folder: its own folder."""
    args = ["fit", "--config", str(run.config), "--trainer.logger.save_dir", str(tmp_path), "--trainer.max_steps", "2"]
    # a rate to go on with when all steps are done
    args += ["--model.schedule", "gau_alpha.training.schedules.Cosine", "--model.schedule.final", "0.1"]
    assert main([*args, "--model.init_from", str(folder)]) == 0
    return tmp_path / "run/first"


def resumed(started, target):
    """Go on from step 2 to step 4 by the config that the run saved."""
    shutil.copytree(started, target)
    args = ["fit", "--config", str(started / "config.yaml"), "--ckpt_path", str(started / "checkpoints/last.ckpt")]
    args += ["--trainer.max_steps", "4", "--trainer.logger.save_dir", str(target)]
    assert main(args) == 0
    return torch.load(target / "run/first/checkpoints/last.ckpt", weights_only=True)


def test_a_run_goes_on_and_is_evaluated_without_what_it_started_from(started, folder, tmp_path, capsys):
    with_folder = resumed(started, tmp_path / "with")
    shutil.rmtree(folder)
    without = resumed(started, tmp_path / "without")
    assert without["global_step"] == 4
    for name, tensor in with_folder["state_dict"].items():
        assert torch.equal(tensor, without["state_dict"][name]), name
    # the record of where the weights come from stays
    assert without["run"]["config"]["model"]["init_from"] == str(folder)
    saved = ["--config", str(started / "config.yaml"), "--trainer.logger", "false"]
    assert main(["validate", *saved, "--ckpt_path", str(started / "checkpoints/last.ckpt")]) == 0
    capsys.readouterr()
    for command in ("fit", "validate"):  # without a checkpoint there is nothing to go on with
        assert main([command, *saved]) == 2
        error = capsys.readouterr().err
        assert str(folder) in error
        assert "no such folder or checkpoint" in error


def test_a_folder_that_has_changed_since_is_not_read(started, folder):
    (folder / "config.json").write_text("{}")
    saved = ["--config", str(started / "config.yaml"), "--trainer.logger", "false"]
    assert main(["validate", *saved, "--ckpt_path", str(started / "checkpoints/last.ckpt")]) == 0
    assert main(["validate", *saved]) == 2


@pytest.mark.slow
def test_a_run_of_its_own_trainer_is_refused_without_weights(tmp_path):
    """Where no command line has looked first."""
    module = GAUAlphaModule(GAUAlphaConfig(20, 16, 24, 8, 1), 12, init_from=str(tmp_path / "nowhere"))
    batch = {name: torch.ones(1, 12, dtype=torch.int64) for name in ("input_ids", "attention_mask", "labels")}
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    loader = DataLoader([batch], batch_size=None)
    for command in (trainer.fit, trainer.validate, trainer.test):
        with pytest.raises(ValueError, match=r"nothing at model\.init_from .*nowhere"):
            command(module, loader)
    trainer.fit(GAUAlphaModule(module.model.config, 12), loader)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    trainer.validate(module, loader, ckpt_path=tmp_path / "trained.ckpt", weights_only=True)


@pytest.mark.parametrize("kind", ["folder", "checkpoint"])
def test_sizes_and_method_are_those_of_the_start_unless_given(run, tmp_path, kind):
    config = GAUAlphaConfig(258, 24, 32, 8, 3, initializer_range=0.3)
    first = GAUAlphaModule(config, 99, AttentionMethod(CosScale(4.0), InfoScale()))
    source = tmp_path / "source"
    if kind == "folder":
        first.model.save_pretrained(source)
    else:
        torch.save({"state_dict": first.state_dict(), "hyper_parameters": dict(first.hparams)}, source)
    written = yaml.safe_load(run.config.read_text())
    written["model"] = {"init_from": str(source)}
    (tmp_path / "start.yaml").write_text(yaml.safe_dump(written))
    args = ["fit", "--config", "start.yaml", "--trainer.logger.save_dir", str(tmp_path), "--trainer.max_steps", "1"]
    assert main([*args, "--model.config.num_hidden_layers", "2", "--model.method.similarity", "DotProduct"]) == 0
    saved = torch.load(tmp_path / "run/first/checkpoints/last.ckpt", weights_only=True)["hyper_parameters"]
    assert (saved["config"]["hidden_size"], saved["config"]["num_hidden_layers"]) == (24, 2)
    assert saved["method"]["similarity"]["class_path"].endswith("DotProduct")
    assert saved["method"]["scaling"]["init_args"]["train_length"] == 16  # the data's, not the 99 of before
