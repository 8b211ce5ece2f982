"""Ways to compute attention. All give the same numbers; they differ in cost.

``reference`` reads like the formula and holds every score at once. ``blocked`` takes a block of queries at a time
against only the keys that these can see; memory is O(block · visible keys). ``fused`` is torch's own attention, for
methods that it can express. Nothing here depends on the strategy.

B batch (1 where all rows agree), L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.method import AttentionPlan
from gau_alpha.position import View, rotate
from gau_alpha.rows import Rows
from gau_alpha.visibility import Visibility, allowed

Observer = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""Called with weights (B, Lq, Lk), query indices (Lq,), key indices (Lk,) and entropies (B, Lq), block by block."""


class Kernel(Protocol):
    """Computes attention for prepared queries and keys."""

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


class Reference:
    """The formula, term by term, on all pairs at once: for tests, and to read."""

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
        index = torch.arange(query.shape[1], device=query.device)  # (L,)
        distance = plan.rows.position_ids[:, None, :] - plan.rows.position_ids[:, :, None]  # (B|1, L, L)
        score = query.new_zeros(query.shape[0], len(index), len(index))  # (B, L, L)
        for view in plan.views:
            similarity = _product(rotate(query, view.query), rotate(key, view.key))  # (B, L, L)
            score = torch.where((distance >= view.low) & (distance <= view.high), similarity, score)
        if plan.position.biased:
            score = score + plan.position.bias(distance)
        score = score * plan.temperature[:, :, None]
        visible = allowed(plan.visibility, index, index, plan.rows)
        if visible is None:
            visible = torch.ones_like(score, dtype=torch.bool)
        weights = score.masked_fill(~visible, torch.finfo(score.dtype).min).softmax(dim=-1) * visible
        if observer is not None:
            observer(weights, index, index, torch.special.entr(weights).sum(-1))
        return F.dropout(weights, dropout).to(value.dtype) @ value  # (B, L, E)


class Blocked:
    """A block of queries at a time, each against the keys it can see.

    Args:
        block_size: Queries per block.

    Raises:
        ValueError: If ``block_size`` is not positive.
    """

    def __init__(self, block_size: int = 256) -> None:
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
            if _reaches(view, rows, -rows.length, rows.length)
        ]
        context = []
        for start in range(0, rows.length, self.block_size):
            stop = min(start + self.block_size, rows.length)
            ranges = plan.visibility.key_ranges(start, stop, rows)
            seen = torch.cat([torch.arange(first, last, device=query.device) for first, last in ranges])  # (Lk,)
            mine = torch.arange(start, stop, device=query.device)  # (Lq,)
            near, far = ranges[0][0] - stop + 1, ranges[-1][1] - 1 - start
            held = [one for one in placed if _reaches(one[0], rows, near, far)]
            distance = _distance(mine, seen, rows) if len(held) > 1 or plan.position.biased else None
            score = None
            for view, turned_query, turned_key in held:
                similarity = _product(turned_query[:, start:stop], _rows_of(turned_key, ranges))  # (B, Lq, Lk)
                if score is None:
                    score = similarity
                else:
                    assert distance is not None
                    score = torch.where((distance >= view.low) & (distance <= view.high), similarity, score)
            assert score is not None, "views leave a distance out"
            if plan.position.biased:
                assert distance is not None
                score = score + plan.position.bias(distance) * _rows_of(plan.temperature, ((start, stop),))[:, :, None]
            visible = allowed(plan.visibility, mine, seen, rows)
            score = _centred(score, visible)
            weights = _softmax(score, visible, plan.num_visible_keys[:, start:stop])
            if observer is not None:
                observer(weights, mine, seen, _entropy(weights, score))
            if dropout:
                weights = F.dropout(weights, dropout)
            context.append(weights.to(value.dtype) @ _rows_of(value, ranges))  # (B, Lq, E)
        return context[0] if len(context) == 1 else torch.cat(context, dim=1)  # (B, L, E)


class Fused:
    """``torch.nn.functional.scaled_dot_product_attention``, values split to the width of the keys.

    Torch's fast kernels want values as wide as keys; GAU's are several times wider, so each slice of the values
    computes the scores again. Serves methods with one view; nothing sees the weights.
    """

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: AttentionPlan,
        dropout: float = 0.0,
        observer: Observer | None = None,
    ) -> Tensor:
        """Attend; see ``Kernel``.

        Raises:
            ValueError: If the method needs several score matrices, or an observer wants to see weights.
        """
        rows = plan.rows
        views = [view for view in plan.views if _reaches(view, rows, -rows.length, rows.length)]
        if len(views) > 1:
            raise ValueError(
                f"kernel 'fused' cannot serve {plan.visibility!r} with {plan.position!r}, which need {len(views)} "
                f"score matrices; use one of: auto, blocked, reference."
            )
        if observer is not None:
            raise ValueError("kernel 'fused' never forms attention weights; use one of: auto, blocked, reference.")
        query = (rotate(query, views[0].query) * plan.temperature[:, :, None]).to(value.dtype)
        key = rotate(key, views[0].key).to(value.dtype)
        slices = [
            F.scaled_dot_product_attention(query, key, part, self._mask(plan, value.dtype), dropout, scale=1.0)
            for part in value.split(key.shape[-1], dim=-1)
        ]
        context = torch.cat(slices, dim=-1)  # (B, L, E)
        return context.masked_fill(plan.num_visible_keys[:, :, None] == 0, 0.0)

    def _mask(self, plan: AttentionPlan, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores, (B|1, L, L): the bias, and a floor on hidden keys."""
        index = torch.arange(plan.rows.length, device=plan.rows.device)  # (L,)
        added = None
        if plan.position.biased:
            added = plan.position.bias(_distance(index, index, plan.rows)) * plan.temperature[:, :, None]
        visible = allowed(plan.visibility, index, index, plan.rows)
        if visible is not None:
            if added is None:
                added = torch.zeros((), device=index.device)
            added = torch.where(visible, added, torch.finfo(dtype).min)
        return None if added is None else added.to(dtype)


def attend_at(
    index: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    block_size: int = 256,
    observer: Observer | None = None,
) -> Tensor:
    """Attend from a few queries of each row: what the last layer has to do if only these are asked about.

    Args:
        index: (B, T) int64, places of the queries in their rows. Blocks reach over fewer keys if they ascend.
        query: (B, T, D) float32, the prepared queries at these places.
        key: (B, L, D) float32, all prepared keys.
        value: (B, L, E).
        plan: The method's plan for the whole rows.
        block_size: Queries per block.
        observer: Sees the weights; its query indices are (B, Tq).

    Returns:
        (B, T, E), zero for a query that sees no key.
    """
    rows = plan.rows
    turned = [rotate(key, view.key) for view in plan.views]  # (B, L, D) each
    context = []
    for mine, asking in zip(index.split(block_size, dim=1), query.split(block_size, dim=1), strict=True):
        ranges = plan.visibility.key_ranges(int(mine.min()), int(mine.max()) + 1, rows)
        seen = torch.cat([torch.arange(first, last, device=query.device) for first, last in ranges])  # (Lk,)
        temperature = _at(plan.temperature, mine)[:, :, None]  # (B, Tq, 1)
        positions = _at(rows.position_ids, mine)  # (B, Tq)
        distance = rows.position_ids[:, None, seen] - positions[:, :, None]  # (B, Tq, Lk)
        score = None
        for view, keys in zip(plan.views, turned, strict=True):
            rotation = None if view.query is None else type(view.query)(*(_at(part, mine) for part in view.query))
            similarity = _product(rotate(asking, rotation) * temperature, _rows_of(keys, ranges))  # (B, Tq, Lk)
            here = (distance >= view.low) & (distance <= view.high)
            score = similarity if score is None else torch.where(here, similarity, score)
        assert score is not None, "a method has at least one view"
        if plan.position.biased:
            score = score + plan.position.bias(distance) * temperature
        visible = _allowed_at(plan.visibility, mine, seen, rows)
        score = _centred(score, visible)
        weights = _softmax(score, visible, _at(plan.num_visible_keys, mine))
        if observer is not None:
            observer(weights, mine, seen, _entropy(weights, score))
        context.append(weights.to(value.dtype) @ _rows_of(value, ranges))  # (B, Tq, E)
    return torch.cat(context, dim=1)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Take x[b, index[b]]: (B|1, L, …) and (B, T) to (B, T, …)."""
    return x[0][index] if x.shape[0] == 1 else x[torch.arange(len(index), device=x.device)[:, None], index]


def _allowed_at(visibility: Visibility, index: Tensor, keys: Tensor, rows: Rows) -> Tensor | None:
    """``allowed`` for queries that differ from row to row: (B, T) and (Lk,) to (B, T, Lk)."""
    mask = allowed(visibility, index[0], keys, rows)
    if mask is None:
        return None
    if mask.shape[0] == 1:  # the rule is the same for all rows
        mask = allowed(visibility, index.flatten(), keys, rows)
        assert mask is not None
        return mask.unflatten(1, index.shape)[0]
    masks = [allowed(visibility, mine, keys, rows) for mine in index]
    return torch.stack([mask[row] for row, mask in enumerate(masks) if mask is not None])


def _product(query: Tensor, key: Tensor) -> Tensor:
    # In float32 whatever the autocast dtype: rounded to bfloat16, a score of 100 is off by up to 0.25 nats.
    with torch.autocast(query.device.type, enabled=False):
        return query.float() @ key.float().transpose(-1, -2)


FLOOR = -64.0
"""A weight below e^FLOOR (1.6e-28) of its row's largest is 0: far below what float32 can add to a sum."""


def _centred(score: Tensor, visible: Tensor | None) -> Tensor:
    """Subtract the largest score of each query, which is 0 then; hidden keys and hopeless ones get the lowest number.

    Args:
        score: (B, Lq, Lk).
        visible: (B|1, Lq, Lk) bool, or None if all are seen.
    """
    lowest = torch.finfo(score.dtype).min
    if visible is not None:
        # A finite floor instead of −∞ keeps a query that sees nothing (and its gradient) from becoming NaN.
        score = score.masked_fill(~visible, lowest)
    # Sharp scores would leave denormal weights, and a matrix product over those is up to 50 times slower on a CPU.
    score = score - score.detach().amax(dim=-1, keepdim=True)
    return F.threshold(score, FLOOR, lowest)


def _softmax(score: Tensor, visible: Tensor | None, num_visible_keys: Tensor) -> Tensor:
    """Turn centred scores (B, Lq, Lk) into weights; a query that sees no key (of n, (B|1, Lq)) gets zeros."""
    weights = score.softmax(dim=-1)
    return weights if visible is None else weights.masked_fill(num_visible_keys[:, :, None] == 0, 0.0)


def _reaches(view: View, rows: Rows, near: int, far: int) -> bool:
    """Say whether a view holds at any of the distances near … far."""
    return not rows.consecutive or (view.low <= far and view.high >= near)


def _entropy(weights: Tensor, score: Tensor) -> Tensor:
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


def _distance(queries: Tensor, keys: Tensor, rows: Rows) -> Tensor:
    if rows.consecutive:
        return (keys - queries[:, None])[None]  # (1, Lq, Lk)
    return rows.position_ids[:, None, keys] - rows.position_ids[:, queries, None]  # (B|1, Lq, Lk)


def _rows_of(x: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    """Take ranges of dimension 1; a single range is not copied."""
    if len(ranges) == 1:
        return x[:, ranges[0][0] : ranges[0][1]]
    return torch.cat([x[:, first:last] for first, last in ranges], dim=1)


KERNELS = {"reference": Reference, "blocked": Blocked, "fused": Fused}


def build_kernel(name: str) -> Kernel:
    """Build a kernel by name.

    Args:
        name: ``reference``, ``blocked``, ``fused``, or ``auto``, which takes ``blocked``: it serves every method and
            was fastest on a CPU for every method and length measured (``tests/benchmarks/kernels.py``).

    Raises:
        ValueError: If there is no kernel of that name.
    """
    if name == "auto":
        return Blocked()
    if name not in KERNELS:
        raise ValueError(f"Unknown kernel {name!r}; choose one of: auto, {', '.join(KERNELS)}.")
    return KERNELS[name]()
