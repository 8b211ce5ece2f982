"""Rates and shares, by a clock that stands still but where the test moves it: each number is known beforehand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.profilers import SimpleProfiler
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import callbacks.throughput
from callbacks.recovery import in_order
from callbacks.throughput import FetchTimer, ResumeClock, TrainingThroughput
from gau_alpha import GAUAlphaConfig, GAUAlphaModule

LENGTH, ROWS = 16, 4
FETCHING, STEP, EVALUATION = 1.0, 2.0, 100.0  # seconds


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The callback's alone: Lightning has its own."""
    clock = Clock()
    monkeypatch.setattr(callbacks.throughput, "time", clock)
    return clock


class Rows(LightningDataModule):
    """Batches of 4 rows of 16; in every other one, 3 tokens of each row are padding, or rows are shorter."""

    def __init__(self, clock, kind="padded", batches=12):
        super().__init__()
        self.clock, self.kind, self.batches = clock, kind, batches

    def batch(self, number):
        odd = number % 2
        ids = torch.randint(2, 30, (ROWS, 12 if odd and self.kind == "variable" else LENGTH))
        batch = {"input_ids": ids, "labels": torch.where(torch.arange(ids.shape[1]) < 2 + odd, ids, -100)}
        if odd and self.kind == "padded":
            batch["attention_mask"] = (torch.arange(LENGTH) < LENGTH - 3).expand(ROWS, -1)
        if self.kind == "packed":
            batch["segment_ids"] = (torch.arange(LENGTH) // 5).expand(ROWS, -1)
        return batch

    def train_dataloader(self):
        def fetch(items):
            self.clock.now += FETCHING
            return items[0]

        return DataLoader([self.batch(number) for number in range(self.batches)], collate_fn=fetch)

    def val_dataloader(self):
        return DataLoader([self.batch(0)], batch_size=None)


class Module(GAUAlphaModule):
    """Takes its time, and counts what torch counts."""

    def __init__(self, clock):
        super().__init__(GAUAlphaConfig(30, 16, 24, 8, 2), LENGTH)
        self.clock, self.flops = clock, []

    def training_step(self, batch, batch_idx):
        self.clock.now += STEP
        with FlopCounterMode(display=False) as counter:
            self.training_loss(batch, 0)[0].backward()
        self.zero_grad()
        self.flops.append(counter.get_total_flops())
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.clock.now += EVALUATION
        super().validation_step(batch, batch_idx)


class Evaluating(Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_train_batch_end(self, *args):
        self.clock.now += EVALUATION

    on_train_epoch_end = on_train_batch_end


class Noting(CSVLogger):
    def __init__(self, folder):
        super().__init__(folder)
        self.rows = {}

    def log_metrics(self, metrics, step=None):
        found = {name: value for name, value in metrics.items() if name.startswith("throughput/")}
        if found:
            self.rows[step] = found


def fit(folder, clock, kind="padded", every=2, **options):
    module, logger = Module(clock), Noting(folder)
    own = options.pop("callbacks", [TrainingThroughput(peak_flops=1e6), Evaluating(clock)])
    trainer = Trainer(
        default_root_dir=folder, accelerator="cpu", logger=logger, callbacks=own, log_every_n_steps=every,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        **{"max_epochs": 1, "val_check_interval": 3} | options,
    )  # fmt: skip
    trainer.fit(module, datamodule=Rows(clock, kind))
    return trainer, module, logger.rows


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["padded", "variable", "packed"])
def test_rates_are_those_of_training_alone(tmp_path, clock, kind, accumulate):
    trainer, module, rows = fit(tmp_path, clock, kind, accumulate_grad_batches=accumulate)
    assert list(rows) == list(range(2, 12 // accumulate + 1, 2))
    tokens = {"padded": [64, 52], "variable": [64, 48], "packed": [64, 64]}[kind] * 6
    places = {"padded": [64, 64], "variable": [64, 48], "packed": [64, 64]}[kind] * 6
    first = accumulate  # batches of the step that is left out
    for step, found in rows.items():
        seen = slice(max(first, (step - 2) * accumulate), step * accumulate)
        seconds = (FETCHING + STEP) * len(tokens[seen])
        flops = sum(module.flops[seen]) / seconds
        assert found == {
            "throughput/tokens_per_second": pytest.approx(sum(tokens[seen]) / seconds),
            "throughput/model_flops_per_second": pytest.approx(flops),
            "throughput/mfu": pytest.approx(flops / 1e6),
            "throughput/padding_share": pytest.approx(1 - sum(tokens[seen]) / sum(places[seen])),
            "throughput/data_loading_share": pytest.approx(FETCHING / (FETCHING + STEP)),
        }
    assert {"tokens/s", "mfu"} <= trainer.progress_bar_metrics.keys()
    assert not isinstance(trainer.profiler, FetchTimer), "the trainer has its own again"


@pytest.mark.slow
def test_a_second_epoch_begins_without_the_evaluation_before_it(tmp_path, clock):
    _, _, rows = fit(tmp_path, clock, "packed", every=3, max_epochs=2)
    assert list(rows) == [3, 6, 9, 12, 15, 18, 21, 24]
    assert {round(found["throughput/tokens_per_second"], 6) for found in rows.values()} == {round(64 / 3, 6)}


@pytest.mark.slow
def test_a_rate_that_was_measured_is_named_so(tmp_path, clock, monkeypatch, caplog):
    monkeypatch.setattr(callbacks.throughput, "measured_rate", lambda device, dtype: 2e9)
    with caplog.at_level("INFO"):
        _, _, rows = fit(tmp_path, clock, callbacks=[TrainingThroughput()])
    found = rows[4]
    assert found["throughput/mfu_of_measured_rate"] == pytest.approx(found["throughput/model_flops_per_second"] / 2e9)
    assert "throughput/mfu" not in found
    assert "of 0.002 TFLOP/s a device in torch.float32, measured on a product of large matrices" in caplog.text


@pytest.mark.slow
def test_weights_are_those_of_a_run_without_it(tmp_path, clock):
    ends = []
    for own in ([], [TrainingThroughput()]):
        torch.manual_seed(1)
        _, module, _ = fit(tmp_path, clock, callbacks=own)
        ends.append(list(module.state_dict().values()))
    assert all(torch.equal(one, two) for one, two in zip(*ends, strict=True))


@pytest.mark.slow
def test_the_users_profiler_is_told_everything(tmp_path, clock):
    profiler = SimpleProfiler()
    trainer, _, rows = fit(tmp_path, clock, profiler=profiler)
    assert trainer.profiler is profiler
    assert rows
    assert "train_dataloader_next" in profiler.summary()
    with pytest.raises(KeyError):
        fit(tmp_path, clock, profiler=profiler, callbacks=[TrainingThroughput(), Failing()])
    assert not isinstance(profiler, FetchTimer)


class Failing(Callback):
    def on_train_batch_end(self, *args):
        raise KeyError


@pytest.mark.slow
def test_a_logged_step_every_step_and_never(tmp_path, clock):
    assert list(fit(tmp_path, clock, every=1)[2]) == list(range(2, 13))
    assert not fit(tmp_path, clock, every=0)[2]


def test_several_processes_are_one_machine():
    """The slowest clock counts; counts are added."""
    callback = TrainingThroughput()
    callback._mfu_name, callback._totals = "mfu", [0.0, 0, 0, 0]
    callback._throughput = callbacks.throughput.Throughput(available_flops=100.0, window_size=2)
    of_ranks = [[3.0, 1.0, 2, 8, 100, 128, 300], [4.0, 0.5, 2, 8, 60, 128, 300]]
    for _ in range(2):
        found = callback._update(np.array(of_ranks))
    assert found == {
        "tokens_per_second": pytest.approx(160 / 4),
        "model_flops_per_second": pytest.approx(600 / 4),
        "mfu": pytest.approx(600 / 4 / 100),
        "padding_share": pytest.approx(1 - 160 / 256),
        "data_loading_share": pytest.approx(1 / 4),
    }


def test_it_comes_before_what_evaluates_and_its_clock_goes_on_after_all():
    monitor = TrainingThroughput()
    other, clock = Callback(), ResumeClock()
    assert in_order([clock, other, monitor]) == [monitor, other, clock]


def test_another_module_is_refused():
    with pytest.raises(ValueError, match="counts the operations of a GAUAlphaModule, not of LightningModule"):
        TrainingThroughput().setup(SimpleNamespace(callbacks=[]), LightningModule(), "fit")


def test_a_peak_must_be_positive():
    with pytest.raises(ValueError, match="peak_flops must be positive, got 0"):
        TrainingThroughput(peak_flops=0)
