"""Attention entropy while the blocks stream by.

Dimensions: B rows, Lq queries of a block, Lk keys that the block can see.
"""

import torch
from torch import Tensor


class EntropyMeter:
    """An ``observer`` of the model that sums −Σ_j A_ij ln A_ij over layers and queries, keeping no weights.

    Attributes:
        sums: (B,) float64 on the model's device, None before the first block.
        terms: Number of (layer, query) pairs summed in each row.
    """

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.terms = 0

    def __call__(self, layer: int, weights: Tensor, query_index: Tensor, key_index: Tensor) -> None:
        """Adds one block.

        Args:
            layer: Number of the layer.
            weights: (B, Lq, Lk) attention weights, 0 on hidden keys.
            query_index: (Lq,) places of the queries.
            key_index: (Lk,) places of the keys.
        """
        weights = weights.float()
        # 0 ln 0 = 0 by keeping the logarithm finite: torch.special.entr takes four times as long on a CPU.
        logarithm = weights.clamp_min(torch.finfo(torch.float32).tiny).log_()  # (B, Lq, Lk)
        entropy = -logarithm.mul_(weights).sum(-1)  # (B, Lq)
        block = entropy.sum(-1, dtype=torch.float64)  # (B,)
        self.sums = block if self.sums is None else self.sums + block
        self.terms += weights.shape[1]
