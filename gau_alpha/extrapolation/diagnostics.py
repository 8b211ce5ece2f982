"""Where attention goes, measured while its blocks stream by: no L × L weights are ever kept.

Dimensions: B rows, K layers, N blocks of Lq queries and Lk keys, C = 3 + bins columns.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_FIRST_BIN = 3  # the columns before: entropy, sink, near


def num_columns(length: int) -> int:
    """C: how many numbers are kept per layer at a length."""
    return _FIRST_BIN + num_bins(length)


def num_bins(length: int) -> int:
    """How many distance bins a length needs: 0, 1, 2–3, 4–7, … tokens, the last one holding ``length`` − 1."""
    return (length - 1).bit_length() + 1


def bin_starts(bins: int) -> list[int]:
    """Smallest distance in tokens of each bin: 0, then powers of 2."""
    return [0, *(2**power for power in range(bins - 1))]


class AttentionMeter:
    """An ``observer`` of the model that sums what attention does, per layer and row of the batch.

    Args:
        num_layers: K.
        length: Tokens per row.
        train_length: Keys at most ``train_length // 2`` tokens away, on both sides, count as near.
        distances: Whether to look at distances, which costs a copy of the weights, or at entropies alone.

    Attributes:
        sums: (B, K, C) float64 on the model's device, None before the first block: summed over queries, the entropy in
            nats, the share of a normalizer's sink, the attention on near keys, the attention in each distance bin.
    """

    def __init__(self, num_layers: int, length: int, train_length: int, distances: bool = True) -> None:
        self.num_layers = num_layers
        self.near = train_length // 2
        self.bins = num_bins(length)
        self.distances = distances
        self.sums: Tensor | None = None

    def __call__(
        self,
        layer: int,
        weights: Tensor,
        query_index: Tensor,
        key_index: Tensor,
        entropy: Tensor | None,
        sink: Tensor | None,
    ) -> None:
        """Adds blocks.

        Args:
            layer: Number of the layer.
            weights: (B, N, Lq, Lk) attention weights over their sum, 0 on hidden keys.
            query_index: (1, N, Lq) places of the queries, those of a block one after the other.
            key_index: (1, N, Lk) places of the keys, likewise.
            entropy: (B, N, Lq) nats; None if they came with other keys of the same queries.
            sink: (B, N, Lq) share of the sink; None if there is none, or it came with other keys.
        """
        if self.sums is None:
            self.sums = torch.zeros(
                len(weights), self.num_layers, _FIRST_BIN + self.bins, dtype=torch.float64, device=weights.device
            )
        if entropy is not None:
            self.sums[:, layer, 0] += entropy.sum((1, 2), dtype=torch.float64)
        if sink is not None:
            self.sums[:, layer, 1] += sink.sum((1, 2), dtype=torch.float64)
        if self.distances:
            self._add_distances(layer, weights, key_index[0, :, 0] - query_index[0, :, 0])

    def _add_distances(self, layer: int, weights: Tensor, first: Tensor) -> None:
        """Adds blocks whose first key is ``first`` (N,) to the right of the first query."""
        mass = diagonal_sums(weights.float().flatten(0, 1)).double()  # (B · N, Lq + Lk − 1)
        mass = mass.unflatten(0, weights.shape[:2])  # (B, N, Lq + Lk − 1)
        step = torch.arange(mass.shape[2], device=mass.device) - (weights.shape[2] - 1)
        distance = (first[:, None] + step).abs()  # (N, Lq + Lk − 1)
        assert self.sums is not None
        self.sums[:, layer, 2] += (mass * (distance <= self.near)).sum((1, 2))
        # The bin is the number of binary digits: 0, 1, 2 for 2 and 3, 3 for 4 to 7, … Places outside the row weigh 0.
        _, digits = torch.frexp(distance.clamp(max=2 ** (self.bins - 1) - 1).float())
        self.sums[:, layer, _FIRST_BIN:].index_add_(1, digits.long().flatten(), mass.flatten(1))


def diagonal_sums(x: Tensor) -> Tensor:
    """Sums along all diagonals.

    Args:
        x: (B, R, C).

    Returns:
        (B, R + C − 1), of which element d is Σ_r x[:, r, r + d − (R − 1)].
    """
    batch, rows, columns = x.shape
    width = rows + columns
    # Written in rows of one width and read in rows one wider, row r moves r places to the left: columns are diagonals.
    skewed = x.new_zeros(batch, rows * (width + 1))
    skewed[:, : rows * width].view(batch, rows, width)[:, :, rows - 1 : rows - 1 + columns] = x
    return skewed.view(batch, rows, width + 1).sum(1)[:, : width - 1]


@dataclass(frozen=True)
class Diagnostics:
    """Means over documents and queries of what ``AttentionMeter`` sums.

    Attributes:
        layers: (K, C) float64.
    """

    layers: np.ndarray

    @classmethod
    def from_sums(cls, sums: np.ndarray, num_queries: int, num_layers: int) -> "Diagnostics":
        """Divides sums by the number of queries.

        Args:
            sums: (D, K · C) float64, added in the order of the documents.
            num_queries: Queries of all documents, per layer.
            num_layers: K.
        """
        return cls(sums.sum(0).reshape(num_layers, -1) / num_queries)

    @property
    def entropy(self) -> np.ndarray:
        """(K,) mean attention entropy in nats."""
        return self.layers[:, 0]

    @property
    def sink(self) -> np.ndarray:
        """(K,) mean share of the normalizer's sink; 0 where it has none."""
        return self.layers[:, 1]

    @property
    def near(self) -> np.ndarray:
        """(K,) mean share of attention on near keys."""
        return self.layers[:, 2]

    @property
    def bins(self) -> np.ndarray:
        """(K, bins) mean share of attention by distance."""
        return self.layers[:, _FIRST_BIN:]
