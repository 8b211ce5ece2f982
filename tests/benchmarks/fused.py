"""Torch's own attention.

B batch, L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.kernels.base import Observer
from gau_alpha.attention.kernels.scores import by_distance, place
from gau_alpha.attention.layout import take
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.normalizer import Softmax
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
        query_positions: Tensor | None = None,
        dropout: float = 0.0,
        observer: Observer | None = None,
    ) -> Tensor:
        """Attend; see ``Kernel``.

        Raises:
            ValueError: If the method needs several score matrices, a gain, or another normalizer than softmax, or an
                observer wants to see weights.
        """
        if plan.position.gained or not isinstance(plan.normalizer, Softmax):
            raise ValueError(
                f"kernel 'fused' knows softmax alone, and no gain, not {plan.normalizer!r} with {plan.position!r}; use "
                f"one of: auto, blocked, reference."
            )
        placed = place(query, key, plan)
        if len(placed) > 1:
            raise ValueError(
                f"kernel 'fused' cannot serve {plan.visibility!r} with {plan.position!r}, which need {len(placed)} "
                f"score matrices; use one of: auto, blocked, reference."
            )
        if observer is not None:
            raise ValueError("kernel 'fused' never forms attention weights; use one of: auto, blocked, reference.")
        query, key = placed[0].query.to(value.dtype), placed[0].key.to(value.dtype)
        slices = [
            F.scaled_dot_product_attention(query, key, part, self._mask(plan, value.dtype), dropout, scale=1.0)
            for part in value.split(key.shape[-1], dim=-1)
        ]
        context = torch.cat(slices, dim=-1)  # (B, L, E)
        context = context.masked_fill(plan.num_visible_keys[:, :, None] == 0, 0.0)
        return context if query_positions is None else take(context, query_positions)

    def _mask(self, plan: AttentionPlan, dtype: torch.dtype) -> Tensor | None:
        """Return what is added to the scores, (B|1, L, L): the bias, and a floor on hidden keys."""
        index = torch.arange(plan.layout.length, device=plan.layout.device)[None]  # (1, L)
        queries, keys = index[:, :, None], index[:, None]
        added = None
        if plan.position.biased:
            added = by_distance(torch.zeros((), device=index.device), queries, keys, plan.temperature[:, :, None], plan)
        visible = allowed(plan.visibility, queries, keys, plan.layout)
        if visible is not None:
            if added is None:
                added = torch.zeros((), device=index.device)
            added = torch.where(visible, added, torch.finfo(dtype).min)
        return None if added is None else added.to(dtype)
