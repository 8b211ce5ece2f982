"""Loss and right predictions of a batch, at its targets alone; and the gradient of the mean over them.

B batch, L length, T targets of a row, H hidden size, N targets of the batch, V vocabulary.
"""

from typing import cast

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.batch import Batch, layout, with_targets

LOGITS_AT_ONCE = 2**26
"""Logits of a batch beyond so many (256 MiB) are made, used and made again for the gradient in pieces."""


def masked_lm_loss(model: GAUAlphaForMaskedLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate a batch; logits are made at its targets only.

    Args:
        model: The model.
        batch: As ``with_targets`` returns it, on the device. Given ``labels`` alone, targets are found here, and the
            host waits for the device.

    Returns:
        Summed loss in nats, right predictions and number of targets, () each.
    """
    batch = with_targets(batch)
    targets = batch["targets"]  # (N,)
    hidden = model(**layout(batch), target_positions=batch["target_positions"], head=False)  # (B, T, H)
    hidden = hidden.flatten(0, 1)[batch["target_index"]]  # (N, H)
    count = torch.full((), len(targets), device=targets.device)
    at_once = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    if len(targets) <= at_once:
        return *_sums_of(model, hidden, targets), count
    pieces = [
        cast(tuple[Tensor, Tensor], checkpoint(_sums_of, model, *piece, use_reentrant=False))
        for piece in zip(hidden.split(at_once), targets.split(at_once), strict=True)
    ]
    nlls, corrects = (torch.stack(parts) for parts in zip(*pieces, strict=True))  # (pieces,)
    return nlls.sum(), corrects.sum(), count


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


def _sums_of(model: GAUAlphaForMaskedLM, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum losses and count right predictions of hidden states (N, H), in float32."""
    logits = model.cls(hidden).float()  # (N, V)
    nll = F.cross_entropy(logits, targets, reduction="sum")  # 0 for N = 0, still part of the graph
    return nll, (logits.argmax(-1) == targets).sum()
