"""Every YAML in ``configs/debug`` does what it says when it is laid over a run."""

import csv
from pathlib import Path

import pytest

import configs
from gau_alpha.cli import main

SHIPPED = sorted(path.stem for path in (Path(configs.__path__[0]) / "debug").glob("*.yaml"))


def one_batch(folder, said):
    assert "`max_steps=1` reached" in said
    assert not (folder / "logged").exists()
    assert (folder / "runs/debug/checkpoints/last.ckpt").is_file(), "callbacks take part"


def overfit(folder, said):
    with (folder / "logged/run/first/metrics.csv").open() as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(losses) == 20
    assert losses[-1] < 0.5 * losses[0]
    assert not list(folder.rglob("*.ckpt"))


def profile(folder, said):
    assert "FIT Profiler Report" in said
    assert "[LightningModule]GAUAlphaModule.optimizer_step" in said
    assert (folder / "logged/run/first/checkpoints/last.ckpt").is_file()


CHECKS = {"one_batch": one_batch, "overfit": overfit, "profile": profile}


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_laid_over_a_run(run, tmp_path, caplog, capsys, name):
    args = ["--config", str(run.config), "--config", f"debug/{name}.yaml", "--trainer.logger", "CSVLogger"]
    args += ["--trainer.logger.save_dir", "logged", "--trainer.logger.name", "run", "--trainer.logger.version", "first"]
    with caplog.at_level("INFO"):
        assert main(["fit", *args, "--model.optimizer.learning_rate", "0.03"]) == 0
    CHECKS[name](tmp_path, "\n".join([caplog.text, *capsys.readouterr()]))


def test_every_file_has_its_check():
    assert sorted(CHECKS) == SHIPPED
