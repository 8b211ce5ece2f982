"""Loss and right predictions of a batch, at its targets alone; and the gradient of the mean over them.

B batch, L length, H hidden size, N targets, V vocabulary.
"""

from typing import cast

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gau_alpha.model import GAUAlphaForMaskedLM

Batch = dict[str, Tensor]
"""Tensors by name, as a data module collates them."""

LOGITS_AT_ONCE = 2**26
"""Logits of a batch beyond so many (256 MiB) are made, used and made again for the gradient in pieces."""


def masked_lm_loss(model: GAUAlphaForMaskedLM, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Evaluate a batch; logits are made at its targets only.

    Args:
        model: The model.
        batch: ``labels`` (B, L), −100 off target, and what ``layout`` keeps.

    Returns:
        Summed loss in nats, right predictions and number of targets, () each.
    """
    labels = batch["labels"].flatten()  # (B · L,)
    target_index = (labels != -100).nonzero().squeeze(1)  # (N,)
    targets = labels[target_index]  # (N,)
    count = torch.tensor(len(targets), device=labels.device)
    at_once = max(1, LOGITS_AT_ONCE // model.config.vocab_size)
    if len(targets) <= at_once:
        logits = model(**layout(batch), target_index=target_index)  # (N, V)
        return *_sums(logits, targets), count
    hidden = model(**layout(batch), target_index=target_index, head=False)  # (N, H)
    pieces = [
        cast(tuple[Tensor, Tensor], checkpoint(_sums_of, model, *piece, use_reentrant=False))
        for piece in zip(hidden.split(at_once), targets.split(at_once), strict=True)
    ]
    nlls, corrects = (torch.stack(parts) for parts in zip(*pieces, strict=True))  # (pieces,)
    return nlls.sum(), corrects.sum(), count


def layout(batch: Batch) -> Batch:
    """Keep of a batch what the model's ``forward`` takes: (B, L) each."""
    names = ("input_ids", "attention_mask", "position_ids", "segment_ids")
    return {name: batch[name] for name in names if name in batch}


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
    return _sums(model.cls(hidden), targets)


def _sums(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum losses and count right predictions of (N, V) logits, in float32."""
    logits = logits.float()
    nll = F.cross_entropy(logits, targets, reduction="sum")  # 0 for N = 0, still part of the graph
    return nll, (logits.argmax(-1) == targets).sum()
