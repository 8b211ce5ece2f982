"""What a kernel is, and the steps that kernels share.

B batch, L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.position import RotaryBranch

BLOCK_SIZE = 128
"""Queries per block, unless told otherwise: windows then touch few hidden keys, and scores of long rows stay small."""

Observer = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""Called with weights (B, Lq, Lk), query indices (Lq,), key indices (Lk,) and entropies (B, Lq), block by block."""


class Kernel(Protocol):
    """Computes attention for prepared queries and keys."""

    name: str

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: AttentionPlan,
        dropout: float = 0.0,
        observer: Observer | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: (B, L, D) float32, as ``Similarity.prepare`` returns it.
            key: (B, L, D) float32, likewise.
            value: (B, L, E), of the dtype in which weights and values are multiplied.
            plan: The method's plan for these rows.
            dropout: Probability with which a weight is dropped; 0 outside training.
            observer: Sees the weights before dropout.

        Returns:
            (B, L, E), zero for a query that sees no key.
        """
        ...


FLOOR = -64.0
"""A weight below e^FLOOR (1.6e-28) of its row's largest is 0: far below what float32 can add to a sum."""


def product(query: Tensor, key: Tensor) -> Tensor:
    """Multiply queries and keys to scores.

    Args:
        query: (B, Lq, D).
        key: (B, Lk, D).

    Returns:
        (B, Lq, Lk) float32.
    """
    # In float32 whatever the autocast dtype: rounded to bfloat16, a score of 100 is off by up to 0.25 nats.
    with torch.autocast(query.device.type, enabled=False):
        return query.float() @ key.float().transpose(-1, -2)


def centred(score: Tensor, visible: Tensor | None) -> Tensor:
    """Subtract the largest score of each query, which is 0 then; hidden keys and hopeless ones get the lowest number.

    Args:
        score: (B, Lq, Lk), overwritten where no gradient is asked for.
        visible: (B|1, Lq, Lk) bool, or None if all are seen.

    Returns:
        (B, Lq, Lk) float32.
    """
    lowest = torch.finfo(score.dtype).min
    if visible is not None:
        # A finite floor instead of −∞ keeps a query that sees nothing (and its gradient) from becoming NaN.
        score = score.masked_fill(~visible, lowest)
    # Sharp scores would leave denormal weights, and a matrix product over those is up to 50 times slower on a CPU.
    largest = score.detach().amax(dim=-1, keepdim=True)  # (B, Lq, 1)
    in_place = may_overwrite(score)
    score = score.sub_(largest) if in_place else score - largest
    return F.threshold(score, FLOOR, lowest, inplace=in_place)


def may_overwrite(tensor: Tensor) -> bool:
    """Say whether a temporary may be written over: no gradient needs it, and no compiler, which does so by itself.

    Args:
        tensor: (…) of any shape.
    """
    return not (tensor.requires_grad or torch.compiler.is_compiling())


def weights_of(score: Tensor, visible: Tensor | None, num_visible_keys: Tensor, keep_score: bool = True) -> Tensor:
    """Turn centred scores into weights.

    Args:
        score: (B, Lq, Lk), centred.
        visible: (B|1, Lq, Lk) bool, or None if all are seen.
        num_visible_keys: (B|1, Lq), n.
        keep_score: Whether ``score`` is needed afterwards, as for an observer; if not, and no gradient is asked for,
            the weights take its place.

    Returns:
        (B, Lq, Lk), zeros for a query that sees no key.
    """
    in_place = may_overwrite(score) and not keep_score
    weights = torch.softmax(score, dim=-1, out=score) if in_place else score.softmax(dim=-1)
    return weights if visible is None else weights.masked_fill(num_visible_keys[:, :, None] == 0, 0.0)


def entropy(weights: Tensor, score: Tensor) -> Tensor:
    """Compute −Σ_j A_ij ln A_ij in nats without taking the logarithm of every weight.

    ln A_ij = s_ij − ln Z_i, so the entropy is ln Z_i − Σ_j A_ij s_ij. The largest centred score is 0 and its weight
    1 / Z_i.

    Args:
        weights: (B, Lq, Lk).
        score: (B, Lq, Lk), centred.

    Returns:
        (B, Lq) float32, 0 for a query that sees no key.
    """
    largest = weights.amax(dim=-1)  # (B, Lq)
    mean_score = torch.einsum("bqk,bqk->bq", weights, score)
    return torch.where(largest > 0, -largest.clamp_min(torch.finfo(weights.dtype).tiny).log() - mean_score, 0.0)


def reaches(branch: RotaryBranch, layout: SequenceLayout, near: int, far: int) -> bool:
    """Say whether a branch holds at any of the distances from ``near`` to ``far``.

    Args:
        branch: The branch.
        layout: Padding, documents and positions of the batch.
        near: Least distance, in tokens; negative to the left.
        far: Largest distance.
    """
    return not layout.consecutive or (branch.min_distance <= far and branch.max_distance >= near)


def distances(queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor:
    """Say how far to the right of each query each key stands.

    Args:
        queries: (Lq,) indices.
        keys: (Lk,) indices.
        layout: Padding, documents and positions of the batch.

    Returns:
        (B|1, Lq, Lk) int64, negative to the left.
    """
    if layout.consecutive:
        return (keys - queries[:, None])[None]  # (1, Lq, Lk)
    return layout.position_ids[:, None, keys] - layout.position_ids[:, queries, None]  # (B|1, Lq, Lk)


def slice_keys(x: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    """Take ranges of dimension 1; a single range is not copied.

    Args:
        x: (B, L, …).
        ranges: First index, and one past the last, of each range.

    Returns:
        (B, Lk, …).
    """
    if len(ranges) == 1:
        return x[:, ranges[0][0] : ranges[0][1]]
    return torch.cat([x[:, first:last] for first, last in ranges], dim=1)
