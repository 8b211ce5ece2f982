"""Training with compiled blocks."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from gau_alpha.model import GAUAlphaModel


class CompileBlocks(Callback):
    """Compiles the model's blocks with ``torch.compile`` when training begins.

    Evaluations, and whatever else the run does, go on uncompiled, since each length would be compiled anew. Checkpoints
    are those of a run without it. Numbers are rounded differently, and dropout draws others.

    It is worth a try on a GPU. On a CPU, where matrix products take four fifths of a step and are the same either way,
    compiled steps of six layers took 1.0 to 1.1 times as long as plain ones, and the first one up to 15 s.

    Args:
        backend: One of ``torch.compiler.list_backends()``.

    Raises:
        ValueError: If there is no such backend.
    """

    def __init__(self, backend: str = "inductor") -> None:
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            raise ValueError(f"backend={backend!r} must be one of {sorted(known)}.")
        self.backend = backend

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compile the blocks, before a strategy wraps or shards them; say so where it won't pay."""
        if stage != "fit":
            return
        model = pl_module.model
        assert isinstance(model, GAUAlphaModel)
        for block in model.gau_alpha.encoder.blocks():
            block.compile(backend=self.backend)
        if trainer.strategy.root_device.type == "cpu":
            rank_zero_warn(
                "CompileBlocks gains nothing on a CPU: matrix products take four fifths of a step and stay the same. "
                "Leave the callback out, or train on a GPU."
            )
