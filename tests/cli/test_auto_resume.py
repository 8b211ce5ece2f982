"""``fit --auto_resume true``: interrupted and gone on with equals undisturbed."""

import shutil
import signal
from itertools import pairwise
from typing import ClassVar

import pytest
import yaml
from lightning.pytorch import Callback
from process_harness import differences, send_signal

from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.cli import main


class Rates(Callback):
    """Keeps the learning rate of every step."""

    seen: ClassVar[list[float]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def config(folder, run, steps=12, callbacks=()):
    content = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(folder)))
    content["trainer"] |= {"max_steps": steps, "accumulate_grad_batches": 2}
    saver = {"save_last": True, "every_n_train_steps": 4, "save_top_k": -1}
    content["trainer"]["callbacks"] = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver},
        *callbacks,
    ]
    content["auto_resume"] = True
    folder.mkdir(exist_ok=True)
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["fit", "--config", str(path)]


def final(folder):
    return folder / "run/first/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def uninterrupted(slow, tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert main(config(folder, run)) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 6), (signal.SIGUSR1, 8), (signal.SIGINT, 5)])
def test_a_signal_saves_and_the_run_goes_on(tmp_path, run, uninterrupted, capsys, caplog, number, step):
    folder = tmp_path / "runs"
    caplog.set_level("INFO")
    with pytest.raises(SystemExit) as ended:
        main(config(folder, run, callbacks=[send_signal(number, step)]))
    assert ended.value.code == 128 + number
    assert read_checkpoint(folder / "run/first/checkpoints/interrupted.ckpt")["global_step"] == step
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, None)
    assert "--auto_resume true resumes from there" in caplog.text
    capsys.readouterr()
    assert main(config(folder, run)) == 0
    assert "trainer.callbacks" in capsys.readouterr().out  # the changed config is listed
    assert differences(final(uninterrupted), final(folder)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TextDataModule", "StreamingTextDataModule"])
def test_a_run_measured_in_epochs_goes_on_with_the_next_batch(tmp_path, run, kind):
    """To know its steps, Lightning makes the loader before it has read where to go on."""

    def fit(folder, *args):
        command = config(folder, run, steps=-1)
        path = folder / "c.yaml"
        content = yaml.safe_load(path.read_text())
        content["trainer"] |= {"max_epochs": 1, "limit_train_batches": 24, "val_check_interval": 24}
        if kind.startswith("Streaming"):
            data = content["data"]["init_args"]
            content["data"] = {
                "class_path": f"datamodules.{kind}",
                "init_args": {**{k: v for k, v in data.items() if k != "cache_dir"}, "validation_documents": 2},
            }
        path.write_text(yaml.safe_dump(content))
        assert main([*command, *args]) == 0
        return folder / "run/first/checkpoints"

    whole = fit(tmp_path / "whole")
    resumed = fit(tmp_path / "resumed", "--ckpt_path", str(whole / "epoch=0-step=4.ckpt"))
    assert read_checkpoint(whole / "last.ckpt")["global_step"] == 12
    assert differences(whole / "last.ckpt", resumed / "last.ckpt") == []


@pytest.fixture
def folder(tmp_path, uninterrupted):
    """A finished run of one's own."""
    return shutil.copytree(uninterrupted, tmp_path / "runs")


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_leftovers_removed(folder, run, uninterrupted, caplog):
    checkpoints = folder / "run/first/checkpoints"
    left = checkpoints / f".last.ckpt.{'9' * 32}.gau-alpha-unfinished"
    left.write_text("half")
    for path in (checkpoints / "last.ckpt", checkpoints / "epoch=0-step=12.ckpt"):
        path.write_bytes(path.read_bytes()[:-1000])
    with caplog.at_level("INFO"):
        assert main(config(folder, run)) == 0
    assert "last.ckpt is damaged" in caplog.text
    assert "step=8.ckpt, the latest valid checkpoint, saved at step 8" in caplog.text
    assert not left.exists()
    resumed = max(checkpoints.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert differences(final(uninterrupted), resumed) == []


@pytest.mark.slow
def test_an_explicit_path_wins(folder, run, caplog):
    asked = folder / "run/first/checkpoints/epoch=0-step=4.ckpt"
    with caplog.at_level("INFO"):
        assert main([*config(folder, run), "--ckpt_path", str(asked)]) == 0
    assert "was given and wins" in caplog.text
    assert f"Restored all states from the checkpoint at {asked}" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 40])
def test_another_number_of_steps_never_raises_the_rate(folder, run, steps):
    asked = folder / "run/first/checkpoints/epoch=0-step=8.ckpt"
    Rates.seen.clear()
    args = config(folder, run, steps, [{"class_path": f"{__name__}.Rates"}])
    assert main([*args, "--ckpt_path", str(asked)]) == 0
    assert len(Rates.seen) == steps - 8
    assert Rates.seen[0] == read_checkpoint(asked)["optimizer_states"][0]["param_groups"][0]["lr"]
    assert all(later <= before for before, later in pairwise(Rates.seen))
    assert Rates.seen[-1] < Rates.seen[0]


@pytest.mark.slow
def test_more_steps_for_a_run_that_ended_inside_an_epoch(tmp_path, run, capsys):
    """It goes on inside the epoch, like a run that was longer from the start; not if the epoch's end was saved."""
    saver = "lightning.pytorch.callbacks.ModelCheckpoint"

    def fit(folder, steps, options, batches=8):
        command = config(folder, run, steps)
        path = folder / "c.yaml"
        content = yaml.safe_load(path.read_text())
        content["trainer"] |= {"accumulate_grad_batches": 1, "limit_train_batches": batches, "val_check_interval": 1}
        content["trainer"]["callbacks"] = [{"class_path": saver, "init_args": {"save_last": True, **options}}]
        constant = {"warmup": 0, "final": 1.0}
        content["model"]["schedule"] = {"class_path": "gau_alpha.training.schedules.Cosine", "init_args": constant}
        path.write_text(yaml.safe_dump(content))
        capsys.readouterr()
        assert main(command) == 0
        return capsys.readouterr().out

    each_step = {"every_n_train_steps": 1}
    fit(tmp_path / "whole", 6, each_step)
    fit(tmp_path / "extended", 3, each_step)
    assert "is not read" not in fit(tmp_path / "extended", 6, each_step)
    assert differences(final(tmp_path / "whole"), final(tmp_path / "extended")) == []

    each_epoch = {"every_n_epochs": 1, "save_on_train_epoch_end": True}
    fit(tmp_path / "epochs", 3, each_epoch)
    told = "saved at the end of a run that ended inside epoch 0: training goes on with epoch 1, and what was left of"
    assert told in fit(tmp_path / "epochs", 6, each_epoch)
    loader = read_checkpoint(final(tmp_path / "epochs"))["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
    assert (loader["epoch"], loader["batches"]) == (1, 3)
    fit(tmp_path / "ends", 3, each_epoch, batches=3)
    assert "is not read" not in fit(tmp_path / "ends", 6, each_epoch, batches=3)


@pytest.mark.slow
def test_a_method_that_nobody_named_is_no_change(tmp_path, run, uninterrupted, capsys):
    """A config without one says None; the command that goes on takes what the checkpoint has."""
    path = uninterrupted / "run/first/checkpoints/epoch=0-step=4.ckpt"
    args = [*config(tmp_path / "runs", run), "--auto_resume", "false", "--ckpt_path", str(path)]
    assert "method" not in yaml.safe_load((tmp_path / "runs/c.yaml").read_text())["model"]
    assert main(args) == 0
    assert "model.method" not in capsys.readouterr().out
    assert main([*args, "--model.method", "rerope", "--overwrite", "true"]) == 0
    assert "model.method: 'DotProduct() ·" in capsys.readouterr().out
