"""The formula on all pairs at once.

B batch, L length, T queries that are computed, D key size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import Observer
from gau_alpha.attention.kernels.scores import distances, product
from gau_alpha.attention.layout import look_up, take
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.position import rotate
from gau_alpha.visibility import allowed


class Reference:
    """The formula, term by term, on all pairs at once: for tests, and to read."""

    name = "reference"

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
        index = torch.arange(query.shape[1], device=query.device)[None]  # (1, L)
        query_idx = index if query_positions is None else query_positions  # (B|1, T)
        queries, keys = query_idx[:, :, None], index[:, None]  # (B|1, T, 1), (1, 1, L)
        distance = distances(queries, keys, plan.layout)  # (B|1, T, L)
        score = query.new_zeros(query.shape[0], query_idx.shape[1], query.shape[1])  # (B, T, L)
        for branch in plan.branches:
            rotated = rotate(query, branch.query)  # (B, L, D)
            if query_positions is not None:
                rotated = take(rotated, query_positions)  # (B, T, D)
            similarity = product(rotated, rotate(key, branch.key))  # (B, T, L)
            score = torch.where(branch.holds_at(distance), similarity, score)
        if plan.position.gained:
            score = score * plan.position.gain(distance)
        if plan.position.biased:
            score = score + plan.position.bias(distance)
        score = score * look_up(plan.temperature, query_idx)[:, :, None]
        visible = allowed(plan.visibility, queries, keys, plan.layout)
        if visible is None:
            visible = torch.ones_like(score, dtype=torch.bool)
        num_visible_keys = look_up(plan.num_visible_keys, query_idx)  # (B|1, T)
        hidden = score.masked_fill(~visible, torch.finfo(score.dtype).min)  # (B, T, L)
        weights = plan.normalizer.weights(hidden, num_visible_keys) * visible
        if observer is not None:
            share, entropy, sink = plan.normalizer.shares(weights, score, num_visible_keys)
            sink = None if sink is None else sink[:, None]
            observer(share[:, None], query_idx[:, None], index[:, None], entropy[:, None], sink)
        weights = F.dropout(weights, dropout) if dropout else weights
        return weights.to(value.dtype) @ value  # (B, T, E)
