"""How far ``predict`` is, and how long it still takes."""

import math
import time
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console

from gau_alpha.extrapolation.run import progress_bar
from gau_alpha.training.flops import ModelFlops
from gau_alpha.training.module import GAUAlphaModule

_FIRST_LINE, _BETWEEN_LINES = 5.0, 30.0  # seconds


class PredictionProgress(ProgressBar):
    """Shows the share of the work that is done, and the time left: a bar in a terminal, else a line now and then.

    Work is counted in operations, not in batches: one long document can take longer than a thousand short ones. What is
    shown is the first process's share.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._work: list[int] = []  # of each batch of this process
        self._stack = ExitStack()

    def disable(self) -> None:
        """Show nothing, as on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show what there is again."""
        self._enabled = True

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how much work there is."""
        if not self._enabled:
            return
        self._work = _work(trainer, pl_module)
        self._done, self._begun = 0, time.monotonic()
        self._next_line = self._begun + _FIRST_LINE
        console = Console()
        self._bar = self._stack.enter_context(progress_bar(console)) if console.is_terminal else None

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show it, if it is time."""
        if not self._enabled or batch_idx >= len(self._work):
            return
        self._done += self._work[batch_idx]
        total, now = sum(self._work), time.monotonic()
        where = f"batch {batch_idx + 1} of {len(self._work)}"
        if self._bar is not None:
            self._bar(self._done, total, where)
        elif now >= self._next_line:
            self._next_line = now + _BETWEEN_LINES
            left = timedelta(seconds=round((now - self._begun) * (total / self._done - 1)))
            print(f"predicted {self._done / total:.0%} of the work, {where}, about {left} left", flush=True)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is."""
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the bar as it is, so that what follows is on a line of its own."""
        self._stack.close()


def _work(trainer: Trainer, pl_module: LightningModule) -> list[int]:
    """Count the operations of each batch; where shapes are not known beforehand, batches are alike."""
    loader: Any = trainer.predict_dataloaders
    shape = getattr(getattr(loader, "dataset", None), "shape", None)
    if math.inf in trainer.num_predict_batches:
        return []
    num_batches = int(sum(trainer.num_predict_batches))
    if shape is None or not isinstance(pl_module, GAUAlphaModule):
        return [1] * num_batches
    flops = ModelFlops(pl_module.model)
    shapes = [shape(request) for request in loader.sampler][:num_batches]  # (B, L) each
    return [max(1, rows * flops.of_row(length, length)) for rows, length in shapes]
