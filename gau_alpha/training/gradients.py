"""Gradients of sums, made those of the mean over all targets of an optimizer step."""

from typing import cast

from lightning.pytorch import LightningModule
from torch import Tensor


def average_over_targets(module: LightningModule, targets: Tensor) -> None:
    """Divide a module's gradients by the targets of the step: over all processes and accumulated batches.

    Args:
        module: Its losses were sums; its gradients are changed in place.
        targets: () number of targets that this process has counted.
    """
    trainer = module.trainer
    everywhere = cast(Tensor, trainer.strategy.reduce(targets, reduce_op="sum"))
    # Lightning divides by the accumulated batches, DDP and FSDP by the ranks.
    pieces = trainer.accumulate_grad_batches * trainer.world_size
    factor = pieces / everywhere.clamp_min(1)
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad.dtype))
