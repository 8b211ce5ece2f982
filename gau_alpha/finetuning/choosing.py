"""Cross-entropy and metrics of a choice among labels.

N items, C labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from gau_alpha.finetuning.base import IGNORED, Outcome


def choice_outcome(logits: Tensor, labels: Tensor) -> Outcome:
    """Compare logits with labels, where there is one.

    Args:
        logits: (N, C).
        labels: (N,) int64, ``IGNORED`` where there is no target.
    """
    is_target = labels != IGNORED  # (N,)
    logits = logits.float()
    nll = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return Outcome(nll, is_target.sum(), logits.argmax(-1)[is_target], labels[is_target])


def choice_metrics(num_labels: int) -> MetricCollection:
    """Build ``accuracy`` (share of targets that are right) and ``f1`` (mean over the labels of 2PR / (P + R)).

    Both keep counts per label over all targets seen, across batches and processes.
    """
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_labels, average="micro"),
            "f1": MulticlassF1Score(num_labels, average="macro"),
        },
        compute_groups=False,
    )


def choice_columns(logits: Tensor) -> dict[str, Tensor]:
    """Say which label is the most likely, and how likely it is.

    Args:
        logits: (..., C).

    Returns:
        ``label`` (…) int64 and ``probability`` (…) float32.
    """
    probability, label = torch.softmax(logits.float(), -1).max(-1)
    return {"label": label, "probability": probability}
