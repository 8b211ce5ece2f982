"""A block of queries at a time.

B batch (1 where all rows agree), L length, T queries that are computed, Lq queries of a block, D key size, E value
width.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gau_alpha.attention.kernels.band import attend_in_band, keys_per_query
from gau_alpha.attention.kernels.base import Observer
from gau_alpha.attention.kernels.scores import (
    Placed,
    by_distance,
    distances,
    drop,
    holding,
    merged,
    place,
    product,
    weigh,
)
from gau_alpha.attention.layout import look_up, take
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.visibility import allowed

BLOCK_SIZE = 512
"""Queries per block, unless told otherwise."""

RECOMPUTE_FROM = 2048
"""Rows of so many tokens and more keep no weights for the backward pass, which computes them again.

The weights of a row take 8·L² bytes a layer, and what else a layer of the base model keeps some 50,000·L: at 2,048
tokens weights are a quarter of the memory, at 8,192 more than half.
"""


class Blocked:
    """A block of queries at a time against every key, or all blocks at once against the band that a window shows.

    Memory grows with ``block_size`` · L, in training too: the weights of long rows are computed again in the backward
    pass.

    Args:
        block_size: Queries per block.

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
        query_positions: Tensor | None = None,
        dropout: float = 0.0,
        observer: Observer | None = None,
    ) -> Tensor:
        """Attend; see ``Kernel``."""
        layout = plan.layout
        num_queries = layout.length if query_positions is None else query_positions.shape[1]  # T
        if not query.numel():
            return value.new_zeros(len(query), num_queries, value.shape[-1])  # (B, T, E)
        placed = place(query, key, plan)
        band = plan.visibility.band(layout)
        # The band is computed for all queries: selected ones stand at any distance from each other.
        if band is not None and keys_per_query(band, self.block_size) < num_queries:
            context = attend_in_band(placed, value, plan, band, self.block_size, dropout, observer)  # (B, L, E)
            return context if query_positions is None else take(context, query_positions)
        return self._over_all_keys(placed, value, plan, query_positions, dropout, observer)

    def _over_all_keys(
        self,
        placed: list[Placed],
        value: Tensor,
        plan: AttentionPlan,
        query_positions: Tensor | None,
        dropout: float,
        observer: Observer | None,
    ) -> Tensor:
        """See ``Kernel``; the branches are placed already."""
        training = torch.is_grad_enabled()
        again = training and observer is None and plan.layout.length >= RECOMPUTE_FROM
        queries = _Queries.of(placed, plan, query_positions)
        whole = None
        if not training:  # written where it belongs: joining blocks would take their memory twice
            whole = value.new_empty(len(value), queries.positions.shape[1], value.shape[-1])  # (B, T, E)
        blocks = []
        # The backward pass holds several blocks of scores at once.
        size = min(self.block_size, BLOCK_SIZE // 2) if again else self.block_size
        for rows in _blocks(queries.positions.shape[1], size):
            some = queries.at(rows)
            if whole is not None:
                whole[:, rows] = _attend(some, value, plan, dropout, observer)  # (B, Lq, E)
            elif again:
                arguments = (some, value, plan, dropout, observer)
                blocks.append(checkpoint(_attend, *arguments, use_reentrant=False, preserve_rng_state=dropout > 0))
            else:
                blocks.append(_attend(some, value, plan, dropout, observer))
        if whole is not None:
            return whole
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)  # (B, T, E)


def _blocks(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` queries into blocks of ``size``; no queries make one block, whose gradients are zero."""
    for start in range(0, max(count, 1), size):
        yield slice(start, min(start + size, count))


class _Queries(NamedTuple):
    """Queries that are computed, and the keys of their rows.

    Attributes:
        placed: Queries (B, T, D) and keys (B, L, D) of each branch.
        positions: (B|1, T) int64, where the queries stand.
        keys: (1, L) int64.
        temperature: (B|1, T), τ.
        num_visible_keys: (B|1, T) int64, n.
        rows: Where the queries stand, if they follow one another and distances are those of indices.
        known: Where branches hold, by the relative places of a block's keys: most blocks have the same.
    """

    placed: list[Placed]
    positions: Tensor
    keys: Tensor
    temperature: Tensor
    num_visible_keys: Tensor
    rows: slice | None
    known: dict[tuple[int, int, int], list[Tensor]]

    @classmethod
    def of(cls, placed: list[Placed], plan: AttentionPlan, query_positions: Tensor | None) -> "_Queries":
        """Take all queries, or those at ``query_positions`` (B, T)."""
        layout = plan.layout
        index = torch.arange(layout.length, device=layout.device)[None]  # (1, L)
        if query_positions is None:
            rows = slice(0, layout.length) if layout.consecutive else None
            return cls(placed, index, index, plan.temperature, plan.num_visible_keys, rows, {})
        return cls(
            [one._replace(query=take(one.query, query_positions)) for one in placed],
            query_positions,
            index,
            look_up(plan.temperature, query_positions),
            look_up(plan.num_visible_keys, query_positions),
            None,
            {},
        )

    def at(self, rows: slice) -> "_Queries":
        """Take a block of them."""
        return self._replace(
            placed=[one._replace(query=one.query[:, rows]) for one in self.placed],
            positions=self.positions[:, rows],
            temperature=self.temperature[:, rows],
            num_visible_keys=self.num_visible_keys[:, rows],
            rows=None if self.rows is None else rows,
        )


def _attend(queries: _Queries, value: Tensor, plan: AttentionPlan, dropout: float, observer: Observer | None) -> Tensor:
    """Attend from a block of queries to every key: (B, Lq, E)."""
    index, key_index = queries.positions[:, :, None], queries.keys[:, None]  # (B|1, Lq, 1), (1, 1, L)
    if len(queries.placed) == 1:
        score = product(queries.placed[0].query, queries.placed[0].key)  # (B, Lq, L)
    elif queries.rows is None:
        score = merged(queries.placed, holding(queries.placed, distances(index, key_index, plan.layout)))  # (B, Lq, L)
    else:
        pieces = [_piece(queries, first, last) for first, last in _cuts(queries, plan.layout.length)]
        score = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-1)  # (B, Lq, L)
    score = by_distance(score, index, key_index, queries.temperature[:, :, None], plan)
    visible = allowed(plan.visibility, index, key_index, plan.layout)  # (B|1, Lq, L) or None
    weights = weigh(score, visible, queries.num_visible_keys, plan.normalizer)
    if observer is not None:
        share, entropy, sink = plan.normalizer.shares(weights, score, queries.num_visible_keys)
        sink = None if sink is None else sink[:, None]
        observer(share[:, None], index[:, None, :, 0], key_index, entropy[:, None], sink)
    return drop(weights, dropout).to(value.dtype) @ value  # (B, Lq, E)


def _cuts(queries: _Queries, length: int) -> list[tuple[int, int]]:
    """Cut the keys 0 … ``length`` such that only those of a narrow band need several branches."""
    assert queries.rows is not None
    start, stop = queries.rows.start, queries.rows.stop
    cuts = {0, length}
    for branch in (one.branch for one in queries.placed):
        least, most = branch.min_distance, branch.max_distance
        ends = (start + least, stop - 1 + least, start + 1 + most, stop + most)
        cuts |= {int(end) for end in ends if 0 < end < length}
    ranges: list[tuple[int, int]] = []
    for first, last in pairwise(sorted(cuts)):
        mixed = len(_held(queries, first, last)) > 1
        if mixed and ranges and ranges[-1][1] == first and len(_held(queries, *ranges[-1])) > 1:
            ranges[-1] = (ranges[-1][0], last)  # as one piece
        else:
            ranges.append((first, last))
    return ranges


def _held(queries: _Queries, first: int, last: int) -> list[Placed]:
    """Return the branches that hold for some of a block's queries and some of the keys ``first`` … ``last`` − 1."""
    assert queries.rows is not None
    least, most = first - queries.rows.stop + 1, last - 1 - queries.rows.start
    return [one for one in queries.placed if one.branch.min_distance <= most and one.branch.max_distance >= least]


def _piece(queries: _Queries, first: int, last: int) -> Tensor:
    """Compute the scores of a block's queries and some keys: (B, Lq, last − first)."""
    assert queries.rows is not None
    held = [one._replace(key=one.key[:, first:last]) for one in _held(queries, first, last)]
    assert held, "branches leave a distance out"
    if len(held) == 1:
        return product(held[0].query, held[0].key)
    start, stop = queries.rows.start, queries.rows.stop
    relative = (first - start, last - start, stop - start)
    if relative not in queries.known:
        distance = queries.keys[:, first:last] - queries.keys[0, start:stop, None]  # (Lq, last − first)
        queries.known[relative] = holding(held, distance)
    return merged(held, queries.known[relative])
