"""A block of queries at a time.

B batch, L length, Lq and Lk queries and keys of a block, D key size, E value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.kernels.base import (
    Observer,
    centred,
    distances,
    entropy,
    product,
    reaches,
    rows_of,
    weights_of,
)
from gau_alpha.method import AttentionPlan
from gau_alpha.position import rotate
from gau_alpha.visibility import allowed


class Blocked:
    """A block of queries at a time, each against the keys it can see.

    Args:
        block_size: Queries per block.

    Raises:
        ValueError: If ``block_size`` is not positive.
    """

    name = "blocked"

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
            if reaches(view, rows, -rows.length, rows.length)
        ]
        context = []
        for start in range(0, rows.length, self.block_size):
            stop = min(start + self.block_size, rows.length)
            ranges = plan.visibility.key_ranges(start, stop, rows)
            seen = torch.cat([torch.arange(first, last, device=query.device) for first, last in ranges])  # (Lk,)
            mine = torch.arange(start, stop, device=query.device)  # (Lq,)
            near, far = ranges[0][0] - stop + 1, ranges[-1][1] - 1 - start
            held = [one for one in placed if reaches(one[0], rows, near, far)]
            distance = distances(mine, seen, rows) if len(held) > 1 or plan.position.biased else None
            score = None
            for view, turned_query, turned_key in held:
                similarity = product(turned_query[:, start:stop], rows_of(turned_key, ranges))  # (B, Lq, Lk)
                if score is None:
                    score = similarity
                else:
                    assert distance is not None
                    score = torch.where((distance >= view.low) & (distance <= view.high), similarity, score)
            assert score is not None, "views leave a distance out"
            if plan.position.biased:
                assert distance is not None
                score = score + plan.position.bias(distance) * rows_of(plan.temperature, ((start, stop),))[:, :, None]
            visible = allowed(plan.visibility, mine, seen, rows)
            score = centred(score, visible)
            weights = weights_of(score, visible, plan.num_visible_keys[:, start:stop])
            if observer is not None:
                observer(weights, mine, seen, entropy(weights, score))
            if dropout:
                weights = F.dropout(weights, dropout)
            context.append(weights.to(value.dtype) @ rows_of(value, ranges))  # (B, Lq, E)
        return context[0] if len(context) == 1 else torch.cat(context, dim=1)  # (B, L, E)
