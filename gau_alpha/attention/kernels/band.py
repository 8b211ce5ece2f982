"""Windows: all blocks of queries at once, each against the few keys around it and those at the start of the row.

The number of operations does not grow with the length.

B batch (1 where all rows agree), L length, N blocks of a row, Lq queries of a block, Lk keys around it, S sinks, D key
size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import Observer
from gau_alpha.attention.kernels.scores import (
    Placed,
    by_distance,
    distances,
    drop,
    holding,
    holds_between,
    merged,
    weigh,
)
from gau_alpha.attention.layout import look_up
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.visibility import Band, Full, Visibility, allowed

_FEWEST_QUERIES = 16
"""Of a block: for smaller ones products are too small to be fast."""

_MOST_QUERIES = 128
"""Of a block: the more it has, the more keys are computed that only some of its queries see."""

_MOST_SCORES = 2**23
"""Of a row, held at once: 32 MiB in float32. Products are large enough then, and what is larger is given back to the
system by a CPU's allocator each time, which made passes of wide windows half as fast."""


def queries_per_block(band: Band, block_size: int) -> int:
    """Choose Lq: as many as the window reaches, or fewer, which computes at most half as many scores again as are seen.

    Args:
        band: The window.
        block_size: The kernel's, which bounds them.
    """
    return max(min(band.radius, block_size, _MOST_QUERIES), _FEWEST_QUERIES)


def keys_per_query(band: Band, block_size: int) -> int:
    """Count the scores that are computed for each query: Lk + S.

    Args:
        band: The window.
        block_size: The kernel's.
    """
    return queries_per_block(band, block_size) + 2 * band.radius + band.sinks


def attend_in_band(
    placed: list[Placed],
    value: Tensor,
    plan: AttentionPlan,
    band: Band,
    block_size: int,
    dropout: float = 0.0,
    observer: Observer | None = None,
) -> Tensor:
    """Attend to the keys of a band.

    Args:
        placed: Queries and keys (B, L, D) of each branch.
        value: (B, L, E).
        plan: The method's plan.
        band: No other key is seen.
        block_size: At most as many scores are held as so many queries have with all keys, and at most 2²³ of a row.
        dropout: Probability with which a weight is dropped.
        observer: Sees the weights before dropout.

    Returns:
        (B, L, E).
    """
    length, device = plan.layout.length, value.device
    size, radius = queries_per_block(band, block_size), band.radius
    starts = torch.arange(0, length, size, device=device)[None, :, None]  # (1, N, 1)
    query_idx = starts + torch.arange(size, device=device)  # (1, N, Lq)
    key_idx = starts + torch.arange(-radius, size + radius, device=device)  # (1, N, Lk)
    placed = [one._replace(query=_blocks(one.query, size)) for one in placed]  # (B, N, Lq, D)
    near = [
        one._replace(key=_around(one.key, size, radius))  # (B, N, Lk, D)
        for one in placed
        if holds_between(one.branch, plan.layout, -radius, radius)
    ]
    sinks = [one._replace(key=one.key[:, None, : band.sinks]) for one in placed]  # (B, 1, S, D)
    values = _around(value, size, radius)  # (B, N, Lk, E)
    num_blocks = query_idx.shape[1]
    num_keys = keys_per_query(band, block_size)
    at_once = max(1, min(num_blocks * block_size, _MOST_SCORES // size) // num_keys)
    contexts = []
    for start in range(0, num_blocks, at_once):
        some = slice(start, start + at_once)
        near_weights, sink_weights = _weights(
            [one._replace(query=one.query[:, some], key=one.key[:, some]) for one in near],
            [one._replace(query=one.query[:, some]) for one in sinks],
            plan,
            band,
            query_idx[:, some],
            key_idx[:, some],
            observer,
        )
        context = (drop(near_weights, dropout).to(value.dtype) @ values[:, some]).flatten(1, 2)  # (B, N · Lq, E)
        if sink_weights is not None:
            sink_weights = drop(sink_weights, dropout).to(context.dtype).flatten(1, 2)  # (B, N · Lq, S)
            context.baddbmm_(sink_weights, value[:, : band.sinks].to(context.dtype))  # (B, N · Lq, E)
        contexts.append(context)
    return (contexts[0] if len(contexts) == 1 else torch.cat(contexts, dim=1))[:, :length]


def _weights(
    near: list[Placed],
    sinks: list[Placed],
    plan: AttentionPlan,
    band: Band,
    query_idx: Tensor,
    key_idx: Tensor,
    observer: Observer | None,
) -> tuple[Tensor, Tensor | None]:
    """Compute the weights of some blocks.

    Args:
        near: Queries (B, N, Lq, D) and keys around them (B, N, Lk, D).
        sinks: The same queries, and the keys (B, 1, S, D) at the start of the row.
        plan: The method's plan.
        band: Which keys are near.
        query_idx: (1, N, Lq) int64; the last ones may lie behind the row.
        key_idx: (1, N, Lk) int64, likewise, and before it.
        observer: Sees them.

    Returns:
        Weights (B, N, Lq, Lk) and (B, N, Lq, S), None without sinks. A sink that is near has its weight in the first.
    """
    layout = plan.layout
    rule = Full() if band.exact else plan.visibility
    queries = query_idx.clamp(max=layout.length - 1)  # (1, N, Lq)
    keys = key_idx.clamp(0, layout.length - 1)[:, :, None]  # (1, N, 1, Lk)
    num_visible_keys = look_up(plan.num_visible_keys, queries)  # (B|1, N, Lq)
    num_visible_keys = torch.where(query_idx == queries, num_visible_keys, 0)
    temperature = look_up(plan.temperature, queries)[..., None]  # (B|1, N, Lq, 1)
    queries = queries[..., None]  # (1, N, Lq, 1)

    in_row = keys == key_idx[:, :, None]  # (1, N, 1, Lk)
    # of one block, since all have the same: distances of all are int64, twice as large as scores
    is_near = (key_idx[:, :1, None] - query_idx[:, :1, :, None]).abs() <= band.radius  # (1, 1, Lq, Lk)
    score, visible = _seen(near, plan, rule, queries, keys, temperature, in_row & is_near)  # (B, N, Lq, Lk), (B|1, …)
    if not band.sinks:
        weights = weigh(score, visible, num_visible_keys, plan.normalizer)
        if observer is not None:
            share, entropy, sink = plan.normalizer.shares(weights, score, num_visible_keys)
            observer(share, query_idx, key_idx, entropy, sink)
        return weights, None

    sink_idx = torch.arange(min(band.sinks, layout.length), device=keys.device)[None, None]  # (1, 1, S)
    is_far = (sink_idx[:, :, None] - query_idx[..., None]).abs() > band.radius  # (1, N, Lq, S)
    sink_score, sink_visible = _seen(sinks, plan, rule, queries, sink_idx[:, :, None], temperature, is_far)
    score = torch.cat([score, sink_score], dim=-1)  # (B, N, Lq, Lk + S)
    weights = weigh(score, torch.cat([visible, sink_visible], dim=-1), num_visible_keys, plan.normalizer)
    parts = [key_idx.shape[-1], sink_idx.shape[-1]]
    if observer is not None:
        share, entropy, sink = plan.normalizer.shares(weights, score, num_visible_keys)
        near_share, sink_share = share.split(parts, dim=-1)
        observer(near_share, query_idx, key_idx, entropy, sink)
        observer(sink_share, query_idx, sink_idx, None, None)
    near_weights, sink_weights = weights.split(parts, dim=-1)
    return near_weights, sink_weights


def _seen(
    placed: list[Placed],
    plan: AttentionPlan,
    rule: Visibility,
    queries: Tensor,
    keys: Tensor,
    temperature: Tensor,
    within: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute scores, and which of them are of keys that are seen: ``within`` says which may be by the band."""
    holds = holding(placed, distances(queries, keys, plan.layout)) if len(placed) > 1 else []
    score = by_distance(merged(placed, holds), queries, keys, temperature, plan)
    also = allowed(rule, queries, keys, plan.layout)
    return score, within if also is None else within & also


def _blocks(x: Tensor, size: int) -> Tensor:
    """Cut rows into blocks, filled up with zeros: (B, L, D) to (B, N, Lq, D)."""
    rest = -x.shape[1] % size
    return (F.pad(x, (0, 0, 0, rest)) if rest else x).unflatten(1, (-1, size))


def _around(x: Tensor, size: int, radius: int) -> Tensor:
    """Give each block of ``size`` the vectors from ``radius`` before it to ``radius`` behind it, as a view.

    Rows follow one another: what lies outside a row is of the next one, or zero, and has to be hidden.

    Args:
        x: (B, L, D).
        size: Lq.
        radius: In tokens.

    Returns:
        (B, N, Lk, D), a view in which neighbours overlap; a copy in compiled code.
    """
    blocks = _blocks(x, size)  # (B, N, Lq, D)
    outside = x.new_zeros(radius, x.shape[-1])  # (radius, D)
    rows = torch.cat([outside, blocks.flatten(0, 2), outside])  # (B · N · Lq + 2 · radius, D)
    if torch.compiler.is_compiling():
        # Of products with such a view torch 2.13's inductor generates wrong gradients:
        # findings/inductor_gradient_of_overlapping_view.sh.
        starts = torch.arange(0, blocks.shape[0] * blocks.shape[1] * size, size, device=x.device)  # (B · N,)
        keys = starts[:, None] + torch.arange(size + 2 * radius, device=x.device)  # (B · N, Lk)
        return rows[keys].unflatten(0, blocks.shape[:2])
    return rows.unfold(0, size + 2 * radius, size).transpose(1, 2).unflatten(0, blocks.shape[:2])
