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
    rows_of,
    weights_of,
)
from gau_alpha.attention.layout import Rows
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.position import View, rotate
from gau_alpha.visibility import allowed

Placed = tuple[View, Tensor, Tensor]
"""A view with queries and keys that are rotated for it: (B, L, D) each."""

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
        rows = plan.rows
        # τ multiplies similarity and bias alike; on the similarity it costs nothing when folded into the query.
        placed = [
            (view, rotate(query, view.query) * plan.temperature[:, :, None], rotate(key, view.key))  # (B, L, D) each
            for view in plan.views
            if reaches(view, rows, -rows.length, rows.length)
        ]
        context: list[Tensor] = []
        # Without gradients blocks are written where they belong; joining them would take the result's memory twice.
        whole = torch.empty_like(value) if may_overwrite(query) and may_overwrite(value) else None  # (B, L, E)
        for start in range(0, rows.length, self.block_size):
            stop = min(start + self.block_size, rows.length)
            ranges = plan.visibility.key_ranges(start, stop, rows)
            seen = torch.cat([torch.arange(first, last, device=query.device) for first, last in ranges])  # (Lk,)
            mine = torch.arange(start, stop, device=query.device)  # (Lq,)
            score = _scores(placed, start, stop, ranges, rows)  # (B, Lq, Lk)
            if plan.position.biased:
                bias = plan.position.bias(distances(mine, seen, rows))  # (B|1, Lq, Lk)
                score = score + bias * plan.temperature[:, start:stop, None]
            visible = allowed(plan.visibility, mine, seen, rows)
            score = centred(score, visible)
            weights = weights_of(score, visible, plan.num_visible_keys[:, start:stop], observer is not None)
            if observer is not None:
                observer(weights, mine, seen, entropy(weights, score))
            weights = F.dropout(weights, dropout) if dropout else weights
            block = weights.to(value.dtype) @ rows_of(value, ranges)  # (B, Lq, E)
            if whole is None:
                context.append(block)
            else:
                whole[:, start:stop] = block
        if whole is not None:
            return whole
        return context[0] if len(context) == 1 else torch.cat(context, dim=1)  # (B, L, E)


def _scores(placed: list[Placed], start: int, stop: int, ranges: KeyRanges, rows: Rows) -> Tensor:
    """Multiply a block's queries with the keys of some ranges, each key in the view that holds at its distance.

    Args:
        placed: Views with the queries and keys (B, L, D) that they rotated.
        start: First query of the block.
        stop: Query behind the last.
        ranges: Keys that the block can see.
        rows: The batch's rows.

    Returns:
        (B, Lq, Lk) float32.
    """
    mine = torch.arange(start, stop, device=rows.device)
    pieces = []
    for first, last in _pieces(placed, start, stop, ranges, rows):
        held = [one for one in placed if reaches(one[0], rows, first - stop + 1, last - 1 - start)]
        assert held, "views leave a distance out"
        scores = [product(query[:, start:stop], key[:, first:last]) for _, query, key in held]
        score = scores[0]  # (B, Lq, piece)
        if len(held) > 1:
            distance = distances(mine, torch.arange(first, last, device=rows.device), rows)
            for (view, _, _), similarity in zip(held[1:], scores[1:], strict=True):
                score = torch.where((distance >= view.low) & (distance <= view.high), similarity, score)
        pieces.append(score)
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)


def _pieces(placed: list[Placed], start: int, stop: int, ranges: KeyRanges, rows: Rows) -> Iterator[tuple[int, int]]:
    """Cut ranges of keys where a view begins or ends, so that only a narrow band needs two products."""
    edges: set[float] = set()
    if rows.consecutive:
        for view, _, _ in placed:
            edges |= {start + view.low, stop - 1 + view.low, start + 1 + view.high, stop + view.high}
    for first, last in ranges:
        cuts = sorted({first, last, *(int(edge) for edge in edges if first < edge < last)})
        yield from pairwise(cuts)
