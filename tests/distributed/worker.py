"""What the scripts share that tests start as one process of several."""

import os
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.distributed.tensor import DTensor

from gau_alpha.training.fsdp import ShardedStrategy

STRATEGIES = {"auto": lambda: "auto", "ddp": lambda: "ddp", "fsdp": ShardedStrategy}


def bare_trainer(strategy: str, processes: int, **options: Any) -> Trainer:
    """One epoch on CPUs; nothing is logged, shown or saved."""
    return Trainer(
        accelerator="cpu",
        devices=processes,
        strategy=STRATEGIES[strategy](),
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def whole_weights(module: LightningModule) -> dict[str, Tensor]:
    """Gather the weights; a collective."""
    return {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in module.state_dict().items()}


def end() -> None:
    """Leave Python without tearing down torch's C++ threads, which now and then aborts a process that is done."""
    sys.stdout.flush()
    os._exit(0)
