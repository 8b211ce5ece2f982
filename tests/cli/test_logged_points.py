"""TensorBoard after interruptions: the points of an undisturbed run, each once."""

import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gau_alpha.cli import main

STEPS = 14
CLOCK = ("extrapolation/seconds", "extrapolation/share_of_time")


class Interrupt(Callback):
    """Sends this process a signal at some moment of a step."""

    def __init__(self, number: int, step: int, moment: str) -> None:
        self.number, self.step, self.moment = number, step, moment

    def _send(self, trainer, moment, step):
        if (self.moment, self.step) == (moment, step) and not trainer.sanity_checking:
            os.kill(os.getpid(), self.number)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self._send(trainer, "in", trainer.global_step + 1)

    def on_validation_start(self, trainer, pl_module):
        self._send(trainer, "validating", trainer.global_step)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self._send(trainer, "after", trainer.global_step)


def fit(folder, run, *interrupt):
    """Run ``fit``, in a process of its own that a signal may end; return its exit code."""
    saver = {"save_last": True, "every_n_train_steps": 4, "save_top_k": -1}
    measuring = {"every_n_train_steps": 4, "length_ratios": [1, 4], "max_documents": 4}
    callbacks = [
        {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver},
        {"class_path": "callbacks.extrapolation.ExtrapolationEvaluation", "init_args": measuring},
        {"class_path": "callbacks.attention_entropy.AttentionEntropy", "init_args": {"every_n_train_steps": 2}},
    ]
    if interrupt:
        named = dict(zip(("number", "step", "moment"), interrupt, strict=True))
        callbacks.append({"class_path": f"{__name__}.Interrupt", "init_args": named})
    changed = {"max_steps": STEPS, "accumulate_grad_batches": 2, "log_every_n_steps": 3, "callbacks": callbacks}
    changed |= {"val_check_interval": 8, "check_val_every_n_epoch": None}  # batches: every 4 steps
    config = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(folder)))
    config["trainer"] |= changed
    config["auto_resume"] = True
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    process = multiprocessing.get_context("fork").Process(target=_main, args=(["fit", "--config", str(path)],))
    process.start()
    process.join(timeout=120)
    return process.exitcode


def _main(args):
    raise SystemExit(main(args))


def points(folder: Path) -> dict[tuple[str, int], list[float]]:
    """By tag and step, as TensorBoard shows them; of pictures the number of bytes."""
    board = EventAccumulator(str(folder / "run" / "first"), size_guidance={"scalars": 0, "images": 0}).Reload()
    found: dict[tuple[str, int], list[float]] = {}
    for tag in board.Tags()["scalars"]:
        for event in board.Scalars(tag):
            found.setdefault((tag, event.step), []).append(0.0 if tag in CLOCK else event.value)
    for tag in board.Tags()["images"]:
        for event in board.Images(tag):
            found.setdefault((tag, event.step), []).append(len(event.encoded_image_string))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("undisturbed") / "runs"
    assert fit(folder, run) == 0
    return points(folder)


@pytest.mark.slow
def test_steps_are_optimizer_steps_under_accumulation(undisturbed):
    steps = {tag: [step for one, step in undisturbed if one == tag] for tag, _ in undisturbed}
    assert steps["train/loss"] == steps["train/learning_rate"] == [3, 6, 9, 12]
    assert steps["validation/loss"] == [4, 8, 12]
    assert steps["attention/entropy/mean"] == [2, 4, 6, 8, 10, 12, 14]
    assert steps["extrapolation/perplexity"] == steps["extrapolation/seconds"] == [4, 8, 12, 14]
    assert Counter(map(len, undisturbed.values())) == {1: len(undisturbed)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "interruptions",
    [
        [(signal.SIGTERM, 4, "in"), (signal.SIGTERM, 10, "in")],  # before a validation, and between points
        [(signal.SIGKILL, 3, "after"), (signal.SIGKILL, 8, "validating")],  # without a checkpoint, and with one
        [(signal.SIGKILL, 9, "after"), (signal.SIGKILL, 10, "after")],  # two from the same checkpoint
        [(signal.SIGKILL, 6, "after"), (signal.SIGTERM, 12, "in")],
    ],
    ids=lambda moments: "-".join(f"{signal.Signals(number).name}_{moment}_{step}" for number, step, moment in moments),
)
def test_two_interruptions_leave_the_points_of_none(tmp_path, run, undisturbed, interruptions):
    folder = tmp_path / "runs"
    for number, step, moment in interruptions:
        assert fit(folder, run, int(number), step, moment) == (143 if number == signal.SIGTERM else -9)
    assert fit(folder, run) == 0
    assert points(folder) == undisturbed


@pytest.mark.slow
def test_csv_files_are_kept(tmp_path, run):
    config = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(tmp_path)))
    config["trainer"]["logger"]["class_path"] = "lightning.pytorch.loggers.CSVLogger"
    config["auto_resume"] = True
    table = tmp_path / "run" / "first" / "metrics.csv"
    tables = []
    for steps in (3, 5):
        config["trainer"]["max_steps"] = steps
        config["model"]["schedule"] = {
            "class_path": "gau_alpha.training.optimization.Cosine",
            "init_args": {"final": 0.1},
        }
        (tmp_path / "csv.yaml").write_text(yaml.safe_dump(config))
        assert main(["fit", "--config", str(tmp_path / "csv.yaml")]) == 0
        tables.append(table.read_text())
    assert table.with_name("metrics_1.csv").read_text() == tables[0]
    assert tables[0] != tables[1]
