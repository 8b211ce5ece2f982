"""A block of queries at a time.

B batch, L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import (
    BLOCK_SIZE,
    Observer,
    centred,
    distances,
    entropy,
    may_overwrite,
    product,
    reaches,
    slice_keys,
    weights_of,
)
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.position import RotaryBranch, rotate
from gau_alpha.visibility import allowed

RotatedPair = tuple[RotaryBranch, Tensor, Tensor]
"""A branch with queries and keys that are rotated for it: (B, L, D) each."""

KeyRanges = tuple[tuple[int, int], ...]
"""Keys that a block of queries can see: first, and one past the last, of each run."""


class Blocked:
    """A block of queries at a time, each against the keys it can see.

    Args:
        block_size: Queries per block. A larger one costs fewer passes over keys and values; memory grows with it.

    Raises:
        ValueError: If ``block_size`` is not positive.
    """

    name = "blocked"

    def __init__(self, block_size: int = BLOCK_SIZE) -> None:
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1 query, got {block_size}.")
        self.block_size = block_size

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: AttentionPlan,
        dropout: float = 0.0,
        observer: Observer | None = None,
    ) -> Tensor:
        """Attend; see ``Kernel``."""
        if not query.numel():
            return torch.zeros_like(value)  # (B, L, E)
        layout = plan.layout
        # τ multiplies similarity and bias alike; on the similarity it costs nothing when folded into the query.
        rotated = [
            (
                branch,
                rotate(query, branch.query) * plan.temperature[:, :, None],
                rotate(key, branch.key),
            )  # (B, L, D) each
            for branch in plan.branches
            if reaches(branch, layout, -layout.length, layout.length)
        ]
        context: list[Tensor] = []
        # Without gradients blocks are written where they belong; joining them would take the result's memory twice.
        whole = torch.empty_like(value) if may_overwrite(query) and may_overwrite(value) else None  # (B, L, E)
        for start in range(0, layout.length, self.block_size):
            stop = min(start + self.block_size, layout.length)
            ranges = plan.visibility.key_ranges(start, stop, layout)
            key_idx = torch.cat([torch.arange(first, last, device=query.device) for first, last in ranges])  # (Lk,)
            query_idx = torch.arange(start, stop, device=query.device)  # (Lq,)
            score = _scores(rotated, start, stop, ranges, layout)  # (B, Lq, Lk)
            if plan.position.biased:
                bias = plan.position.bias(distances(query_idx, key_idx, layout))  # (B|1, Lq, Lk)
                score = score + bias * plan.temperature[:, start:stop, None]
            visible = allowed(plan.visibility, query_idx, key_idx, layout)
            score = centred(score, visible)
            weights = weights_of(score, visible, plan.num_visible_keys[:, start:stop], observer is not None)
            if observer is not None:
                observer(weights, query_idx, key_idx, entropy(weights, score))
            weights = F.dropout(weights, dropout) if dropout else weights
            block = weights.to(value.dtype) @ slice_keys(value, ranges)  # (B, Lq, E)
            if whole is None:
                context.append(block)
            else:
                whole[:, start:stop] = block
        if whole is not None:
            return whole
        return context[0] if len(context) == 1 else torch.cat(context, dim=1)  # (B, L, E)


def _scores(rotated: list[RotatedPair], start: int, stop: int, ranges: KeyRanges, layout: SequenceLayout) -> Tensor:
    """Multiply a block's queries with the keys of some ranges, each key in the branch that holds at its distance.

    Args:
        rotated: Branches with the queries and keys (B, L, D) that they rotated.
        start: First query of the block.
        stop: Query behind the last.
        ranges: Keys that the block can see.
        layout: Padding, documents and positions of the batch.

    Returns:
        (B, Lq, Lk) float32.
    """
    query_idx = torch.arange(start, stop, device=layout.device)
    pieces = []
    for first, last in _pieces(rotated, start, stop, ranges, layout):
        held = [one for one in rotated if reaches(one[0], layout, first - stop + 1, last - 1 - start)]
        assert held, "branches leave a distance out"
        scores = [product(query[:, start:stop], key[:, first:last]) for _, query, key in held]
        score = scores[0]  # (B, Lq, piece)
        if len(held) > 1:
            distance = distances(query_idx, torch.arange(first, last, device=layout.device), layout)
            for (branch, _, _), similarity in zip(held[1:], scores[1:], strict=True):
                score = torch.where(branch.holds_at(distance), similarity, score)
        pieces.append(score)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


def _pieces(
    rotated: list[RotatedPair], start: int, stop: int, ranges: KeyRanges, layout: SequenceLayout
) -> Iterator[tuple[int, int]]:
    """Cut ranges of keys where a branch begins or ends, so that only a narrow band needs two products."""
    edges: set[float] = set()
    if layout.consecutive:
        for branch, _, _ in rotated:
            edges |= {
                start + branch.min_distance,
                stop - 1 + branch.min_distance,
                start + 1 + branch.max_distance,
                stop + branch.max_distance,
            }
    for first, last in ranges:
        cuts = sorted({first, last, *(int(edge) for edge in edges if first < edge < last)})
        yield from pairwise(cuts)
