"""Dropout that a resumed run repeats."""

import hashlib
import os
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class DropoutSeed(Callback):
    """Seeds torch before every training batch from (seed of the run, epoch, batch, process).

    Checkpoints hold no state of random numbers, and need none: whatever a batch draws is a function of its place.
    """

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed all devices of this process."""
        place = (os.environ.get("PL_GLOBAL_SEED", "0"), trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int.from_bytes(hashlib.sha256(repr(place).encode()).digest()[:7], "little"))
