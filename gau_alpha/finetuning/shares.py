"""Metrics over items that are right or wrong as a whole, kept as sums and counts."""

import torch
from torch import Tensor

from gau_alpha.training.metrics import TokenAverage


class ShareRight(TokenAverage):
    """Share of items of which every part is right: accuracy of numbers, exact match of spans."""

    def update(self, predicted: Tensor, targets: Tensor) -> None:
        """Add items.

        Args:
            predicted: (N,) or (N, parts) int64.
            targets: (N,) or (N, parts) int64.
        """
        right = (predicted == targets).flatten(1).all(1) if predicted.ndim > 1 else predicted == targets  # (N,)
        super().update(right.sum(), torch.tensor(len(right), device=right.device))


class SpanOverlap(TokenAverage):
    """Mean over items of F1 between the tokens of two spans: 2 · common / (one + other), 0 where none is common."""

    def update(self, predicted: Tensor, targets: Tensor) -> None:
        """Add items.

        Args:
            predicted: (N, 2) int64, first and last token of each span.
            targets: (N, 2) int64.
        """
        first = torch.maximum(predicted[:, 0], targets[:, 0])  # (N,)
        last = torch.minimum(predicted[:, 1], targets[:, 1])
        common = (last - first + 1).clamp_min(0)
        sizes = (predicted[:, 1] - predicted[:, 0] + 1) + (targets[:, 1] - targets[:, 0] + 1)
        f1 = 2 * common / sizes  # (N,) float32
        super().update(f1.sum(), torch.tensor(len(f1), device=f1.device))
