"""How fast training goes, and how much of what the devices could do it uses."""

import time
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.throughput import Throughput
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from gau_alpha.extrapolation.distributed import Ranks
from gau_alpha.training.flops import ModelFlops, computing_dtype, known_peak, measured_rate, wait_for
from gau_alpha.training.logging import log_at_step
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.limits import require_number

_FETCHING = "train_dataloader_next"
"""How Lightning's profiler names the action of waiting for a batch ends so."""


class TrainingThroughput(Callback):
    """Logs tokens/s, model FLOP/s, MFU, the share of padding and that of waiting for data; a bar shows two of them.

    Scalars ``throughput/…`` against the optimizer step, every ``log_every_n_steps`` steps, each over the steps since
    the last time, the run's first one left out; all processes together. Time is that of training alone: fetching
    batches, the steps, and what they wait for. What other callbacks do at the end of a batch, and validation, are left
    out. The host waits for the device once per logged step; on a GPU, evaluations at other steps take up to a step's
    time along.

    MFU is ``mfu`` where the device's peak is known (Lightning has a table, or you give it), and otherwise
    ``mfu_of_measured_rate``, relative to a product of large matrices at the start, which no device does at its peak:
    the two can't be compared. Which operations count says ``gau_alpha.training.flops.ModelFlops``.

    Args:
        peak_flops: What one device can do at most in the run's precision, in FLOP/s, as its data sheet has it. Default:
            as above.

    Raises:
        ValueError: If ``peak_flops`` is not positive. When training begins, if the module is none of ours.
    """

    def __init__(self, peak_flops: float | None = None) -> None:
        if peak_flops is not None:
            require_number("peak_flops", peak_flops, above=0)
        self.peak_flops = peak_flops
        self._clock = ResumeClock()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that operations can be counted, and learn when other callbacks have done their work.

        Raises:
            ValueError: If the module is no ``GAUAlphaModule``.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, GAUAlphaModule):
            raise ValueError(
                f"TrainingThroughput counts the operations of a GAUAlphaModule, not of {type(pl_module).__name__}: "
                f"leave it out, or use lightning.pytorch.callbacks.ThroughputMonitor."
            )
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
        if self._clock not in callbacks:
            callbacks.append(self._clock)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out what the devices can do, and begin to count."""
        assert isinstance(pl_module, GAUAlphaModule), "setup has checked it"
        peak, self._mfu_name = self._peak(trainer)
        everywhere = float(_of_ranks(trainer, [peak]).sum())
        self._flops = ModelFlops(pl_module.model)
        self._sums = _Sums()
        # A window of two: from one logged step to the next. It gets sums over processes, so to it there is one device.
        self._throughput = Throughput(available_flops=everywhere, window_size=2)
        self._totals = [0.0, 0, 0, 0]  # seconds, batches, rows, tokens
        self._last_step, self._begun = trainer.global_step, False
        self._profiler = FetchTimer(trainer.profiler)  # type: ignore[attr-defined]  # Lightning sets it
        trainer.profiler = self._profiler  # type: ignore[attr-defined]
        self._clock.resume()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Count the batch, and log where it is time."""
        self._sums.add(batch, self._flops)
        stepped, self._last_step = trainer.global_step > self._last_step, trainer.global_step
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it; 0: never
        due = bool(stepped and every and (not self._begun or trainer.global_step % every == 0))
        if due:
            wait_for(trainer.strategy.root_device)  # what it still has to do is the time of these steps
        self._sums.seconds += time.perf_counter() - self._clock.since
        if not due:
            return
        self._sums.waited, self._profiler.seconds = self._profiler.seconds, 0.0
        values = self._update(_of_ranks(trainer, self._sums.numbers()))
        self._sums = _Sums()
        if self._begun:
            log_at_step(trainer, {f"throughput/{name}": value for name, value in values.items()})
            shown = {"tokens/s": values["tokens_per_second"], self._mfu_name: values[self._mfu_name]}
            for name, value in shown.items():
                pl_module.log(name, torch.tensor(value), prog_bar=True, logger=False)  # a tensor of the CPU stays there
        self._begun = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the trainer its own profiler back."""
        trainer.profiler = self._profiler.inner  # type: ignore[attr-defined]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the trainer its own profiler back."""
        if isinstance(trainer.profiler, FetchTimer):  # type: ignore[attr-defined]
            trainer.profiler = trainer.profiler.inner  # type: ignore[attr-defined]

    def _peak(self, trainer: Trainer) -> tuple[float, str]:
        """Return what this process's device can do, in FLOP/s, and what a share of it is called; say both."""
        device, dtype = trainer.strategy.root_device, computing_dtype(str(trainer.precision))
        rate = 0.0 if self.peak_flops else measured_rate(device, dtype)
        peak = self.peak_flops or known_peak(device, dtype, rate)
        name = "mfu" if peak else "mfu_of_measured_rate"
        known = "given as its peak" if self.peak_flops else "its known peak"
        why = known if peak else "measured on a product of large matrices; its peak is not known"
        rank_zero_info(f"throughput/{name}: of {(peak or rate) / 1e12:.4g} TFLOP/s a device in {dtype}, {why}.")
        return peak or rate, name

    def _update(self, of_ranks: NDArray[np.float64]) -> dict[str, float]:
        """Compute rates and shares since the last time, all processes together.

        Args:
            of_ranks: (W, 7), ``_Sums.numbers`` of each process.
        """
        seconds, waited = of_ranks[:, :2].max(0).tolist()  # the slowest counts
        batches, rows, tokens, places, flops = of_ranks[:, 2:].sum(0).tolist()
        self._totals = [total + x for total, x in zip(self._totals, (seconds, batches, rows, tokens), strict=True)]
        total_seconds, *counts = self._totals
        counted = dict(zip(("batches", "samples", "lengths"), map(int, counts), strict=True))
        self._throughput.update(time=total_seconds, **counted, flops=int(flops))
        rates = self._throughput.compute()
        return {
            "tokens_per_second": rates.get("device/items_per_sec", 0.0),
            "model_flops_per_second": rates.get("device/flops_per_sec", 0.0),
            self._mfu_name: rates.get("device/mfu", 0.0),
            "padding_share": 1 - tokens / places,
            "data_loading_share": waited / seconds,
        }


class ResumeClock(Callback):
    """Knows when all other callbacks had done what they do between batches: it is the last of them.

    Attributes:
        since: When that was; what passes from then on is the time of training.
    """

    since: float = 0.0

    def resume(self) -> None:
        """Let the time of training begin."""
        self.since = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the end of the epoch before."""
        self.resume()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """After evaluations, and after checkpoints are written."""
        self.resume()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After validation."""
        self.resume()


class FetchTimer(Profiler):
    """Adds up how long training waits for its batches, and tells the trainer's own profiler of every action.

    Args:
        inner: The trainer's own.
    """

    def __init__(self, inner: Profiler) -> None:
        super().__init__()
        self.inner = inner
        self.seconds = 0.0
        self._begun = 0.0

    def start(self, action_name: str) -> None:
        """An action begins."""
        self.inner.start(action_name)
        if action_name.endswith(_FETCHING):
            self._begun = time.perf_counter()

    def stop(self, action_name: str) -> None:
        """It has ended."""
        if action_name.endswith(_FETCHING):
            self.seconds += time.perf_counter() - self._begun
        self.inner.stop(action_name)


class _Sums:
    """What this process has done since the last logged step."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.waited = 0.0
        self._batches = 0
        self._rows = 0
        self._places = 0
        self._flops = 0
        self._padding: Tensor | int = 0  # (), on the device

    def add(self, batch: dict[str, Tensor], flops: ModelFlops) -> None:
        places = batch["input_ids"].numel()
        self._batches += 1
        self._rows += places // batch["input_ids"].shape[-1]
        self._places += places
        self._flops += flops.training(batch)
        if "attention_mask" in batch:
            self._padding = self._padding + (batch["attention_mask"] == 0).sum()

    def numbers(self) -> list[float]:
        """Seconds, those of them in which it waited for batches, batches, rows, tokens, places and operations."""
        tokens = self._places - int(self._padding)
        return [self.seconds, self.waited, self._batches, self._rows, tokens, self._places, self._flops]


def _of_ranks(trainer: Trainer, numbers: list[float]) -> NDArray[np.float64]:
    """Gather numbers of all processes: (W, len(numbers)); a collective."""
    of_ranks = np.zeros((trainer.world_size, len(numbers)))
    of_ranks[trainer.global_rank] = numbers
    return Ranks(trainer.strategy.root_device).gather_disjoint(of_ranks)
