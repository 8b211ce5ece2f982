"""Torch's own attention.

B batch, L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import (
    Observer,
    distances,
    reaches,
)
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.position import rotate
from gau_alpha.visibility import allowed


class Fused:
    """``torch.nn.functional.scaled_dot_product_attention``, values split to the width of the keys.

    Torch's fast kernels want values as wide as keys; GAU's are several times wider, so each slice of the values
    computes the scores again. Serves methods with one branch; nothing sees the weights.
    """

    name = "fused"

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
        layout = plan.layout
        branches = [branch for branch in plan.branches if reaches(branch, layout, -layout.length, layout.length)]
        if len(branches) > 1:
            raise ValueError(
                f"kernel 'fused' cannot serve {plan.visibility!r} with {plan.position!r}, which need {len(branches)} "
                f"score matrices; use one of: auto, blocked, reference."
            )
        if observer is not None:
            raise ValueError("kernel 'fused' never forms attention weights; use one of: auto, blocked, reference.")
        query = (rotate(query, branches[0].query) * plan.temperature[:, :, None]).to(value.dtype)
        key = rotate(key, branches[0].key).to(value.dtype)
        slices = [
            F.scaled_dot_product_attention(query, key, part, self._mask(plan, value.dtype), dropout, scale=1.0)
            for part in value.split(key.shape[-1], dim=-1)
        ]
        context = torch.cat(slices, dim=-1)  # (B, L, E)
        return context.masked_fill(plan.num_visible_keys[:, :, None] == 0, 0.0)

    def _mask(self, plan: AttentionPlan, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores, (B|1, L, L): the bias, and a floor on hidden keys."""
        index = torch.arange(plan.layout.length, device=plan.layout.device)  # (L,)
        added = None
        if plan.position.biased:
            added = plan.position.bias(distances(index, index, plan.layout)) * plan.temperature[:, :, None]
        visible = allowed(plan.visibility, index, index, plan.layout)
        if visible is not None:
            if added is None:
                added = torch.zeros((), device=index.device)
            added = torch.where(visible, added, torch.finfo(dtype).min)
        return None if added is None else added.to(dtype)
