"""The formula on all pairs at once.

B batch, L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import (
    Observer,
    product,
)
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
        dropout: float = 0.0,
        observer: Observer | None = None,
    ) -> Tensor:
        """Attend; see ``Kernel``."""
        if not query.numel():
            return torch.zeros_like(value)  # (B, L, E)
        index = torch.arange(query.shape[1], device=query.device)  # (L,)
        distance = plan.layout.position_ids[:, None, :] - plan.layout.position_ids[:, :, None]  # (B|1, L, L)
        score = query.new_zeros(query.shape[0], len(index), len(index))  # (B, L, L)
        for branch in plan.branches:
            similarity = product(rotate(query, branch.query), rotate(key, branch.key))  # (B, L, L)
            score = torch.where(branch.holds_at(distance), similarity, score)
        if plan.position.biased:
            score = score + plan.position.bias(distance)
        score = score * plan.temperature[:, :, None]
        visible = allowed(plan.visibility, index, index, plan.layout)
        if visible is None:
            visible = torch.ones_like(score, dtype=torch.bool)
        weights = score.masked_fill(~visible, torch.finfo(score.dtype).min).softmax(dim=-1) * visible
        if observer is not None:
            observer(weights, index, index, torch.special.entr(weights).sum(-1))
        weights = F.dropout(weights, dropout) if dropout else weights
        return weights.to(value.dtype) @ value  # (B, L, E)
