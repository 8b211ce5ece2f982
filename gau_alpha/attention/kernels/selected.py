"""A few queries of each row, against all keys.

B batch, L length, T selected queries of a row, Tq of them in a block, Lk keys of a block, D key size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import (
    BLOCK_SIZE,
    Observer,
    centred,
    entropy,
    product,
    slice_keys,
    weights_of,
)
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.position import rotate
from gau_alpha.visibility import Visibility, allowed


def attend_at(
    query_positions: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: AttentionPlan,
    block_size: int = BLOCK_SIZE,
    dropout: float = 0.0,
    observer: Observer | None = None,
) -> Tensor:
    """Attend from a few queries of each row: what the last layer has to do if only these are asked about.

    Args:
        query_positions: (B, T) int64, places of the queries in their rows. Blocks reach over fewer keys if they ascend.
        query: (B, T, D) float32, the prepared queries at these places.
        key: (B, L, D) float32, all prepared keys.
        value: (B, L, E).
        plan: The method's plan for the whole rows.
        block_size: Queries per block at most, as in ``Blocked``.
        dropout: Probability with which a weight is dropped; 0 outside training.
        observer: Sees the weights before dropout; its query indices are (B, Tq).

    Returns:
        (B, T, E), zero for a query that sees no key.
    """
    if not query.numel():
        return value.new_zeros(*query.shape[:2], value.shape[-1])  # (B, T, E)
    layout = plan.layout
    rotated_keys = [rotate(key, branch.key) for branch in plan.branches]  # (B, L, D) each
    context = []
    for query_idx, query_block in zip(
        query_positions.split(block_size, dim=1), query.split(block_size, dim=1), strict=True
    ):
        ranges = plan.visibility.key_ranges(int(query_idx.min()), int(query_idx.max()) + 1, layout)
        key_idx = torch.cat([torch.arange(first, last, device=query.device) for first, last in ranges])  # (Lk,)
        temperature = _at(plan.temperature, query_idx)[:, :, None]  # (B, Tq, 1)
        distance = None
        if len(plan.branches) > 1 or plan.position.biased:
            positions = _at(layout.position_ids, query_idx)  # (B, Tq)
            distance = layout.position_ids[:, None, key_idx] - positions[:, :, None]  # (B, Tq, Lk)
        score = None
        for branch, keys in zip(plan.branches, rotated_keys, strict=True):
            rotation = (
                None if branch.query is None else type(branch.query)(*(_at(part, query_idx) for part in branch.query))
            )
            similarity = product(rotate(query_block, rotation) * temperature, slice_keys(keys, ranges))  # (B, Tq, Lk)
            if score is None or distance is None:
                score = similarity
            else:
                score = torch.where(branch.holds_at(distance), similarity, score)
        assert score is not None, "a method has at least one branch"
        if plan.position.biased:
            assert distance is not None, "made above"
            score = score + plan.position.bias(distance) * temperature
        visible = _allowed_at(plan.visibility, query_idx, key_idx, layout)
        score = centred(score, visible)
        weights = weights_of(score, visible, _at(plan.num_visible_keys, query_idx), observer is not None)
        if observer is not None:
            observer(weights, query_idx, key_idx, entropy(weights, score))
        weights = F.dropout(weights, dropout) if dropout else weights
        context.append(weights.to(value.dtype) @ slice_keys(value, ranges))  # (B, Tq, E)
    return torch.cat(context, dim=1)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Take x[b, index[b]]: (B|1, L, …) and (B, T) to (B, T, …)."""
    return x[0][index] if x.shape[0] == 1 else x[torch.arange(len(index), device=x.device)[:, None], index]


def _allowed_at(visibility: Visibility, query_positions: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
    """``allowed`` for queries that differ from row to row: (B, T) and (Lk,) to (B, T, Lk)."""
    mask = allowed(visibility, query_positions[0], keys, layout)
    if mask is None:
        return None
    if mask.shape[0] == 1:  # the rule is the same for all rows
        mask = allowed(visibility, query_positions.flatten(), keys, layout)
        assert mask is not None
        return mask.unflatten(1, query_positions.shape)[0]
    masks = [allowed(visibility, query_idx, keys, layout) for query_idx in query_positions]
    return torch.stack([mask[row] for row, mask in enumerate(masks) if mask is not None])
