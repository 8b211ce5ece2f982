"""TensorBoard after interruptions: the points of an undisturbed run, each once."""

import signal
from collections import Counter

import pytest
import yaml
from process_harness import alone, logged_points, run_together, send_signal

from gau_alpha.cli import main

STEPS = 14


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
        callbacks.append(send_signal(*interrupt))
    changed = {"max_steps": STEPS, "accumulate_grad_batches": 2, "log_every_n_steps": 3, "callbacks": callbacks}
    changed |= {"val_check_interval": 8, "check_val_every_n_epoch": None}  # batches: every 4 steps
    config = yaml.safe_load(run.config.read_text().replace(str(run.config.parent), str(folder)))
    config["trainer"] |= changed
    config["auto_resume"] = True
    folder.mkdir(exist_ok=True)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return run_together(folder, ["fit", "--config", str(path)], 1, alone)[0].code


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("uninterrupted") / "runs"
    assert fit(folder, run) == 0
    return logged_points(folder / "run/first")


@pytest.mark.slow
def test_steps_are_optimizer_steps_under_accumulation(uninterrupted):
    steps = {tag: [step for one, step in uninterrupted if one == tag] for tag, _ in uninterrupted}
    assert steps["train/loss"] == steps["train/learning_rate"] == [3, 6, 9, 12]
    assert steps["validation/loss"] == [4, 8, 12]
    assert steps["attention/entropy/mean"] == [2, 4, 6, 8, 10, 12, 14]
    assert steps["extrapolation/perplexity"] == steps["extrapolation/seconds"] == [4, 8, 12, 14]
    assert Counter(map(len, uninterrupted.values())) == {1: len(uninterrupted)}


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
def test_two_interruptions_leave_the_points_of_none(tmp_path, run, uninterrupted, interruptions):
    folder = tmp_path / "runs"
    for number, step, moment in interruptions:
        assert fit(folder, run, number, step, moment) == (143 if number == signal.SIGTERM else -9)
    assert fit(folder, run) == 0
    assert logged_points(folder / "run/first") == uninterrupted


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
            "class_path": "gau_alpha.training.schedules.Cosine",
            "init_args": {"final": 0.1},
        }
        (tmp_path / "csv.yaml").write_text(yaml.safe_dump(config))
        assert main(["fit", "--config", str(tmp_path / "csv.yaml")]) == 0
        tables.append(table.read_text())
    assert table.with_name("metrics_1.csv").read_text() == tables[0]
    assert tables[0] != tables[1]
