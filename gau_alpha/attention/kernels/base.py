"""What a kernel is.

B batch (1 where all rows agree), L length, T queries that are computed, D key size, E value width, N blocks of queries,
Lq and Lk queries and keys of a block.
"""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from gau_alpha.attention.method import AttentionPlan

Observer = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], None]
"""Called with what ``Normalizer.shares`` says of a block, before dropout, and with the block's place.

That is: weights over their sum (B, N, Lq, Lk), query indices (B|1, N, Lq), key indices (1, N, Lk), entropies
(B, N, Lq), and shares of the sink (B, N, Lq), None for a normalizer without one.

Queries of a block are consecutive, unless ``query_positions`` were asked for, and so are its keys. A query's weights
may come in two calls, on keys near it and on those at the start of its row; the second one has no entropies and sinks.
Indices that lie outside the row carry no weight.
"""


class Kernel(Protocol):
    """Computes attention for prepared queries and keys."""

    name: str

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
        """Attend.

        Args:
            query: (B, L, D) float32, as ``Similarity.prepare`` returns it.
            key: (B, L, D) float32, likewise.
            value: (B, L, E), of the dtype in which weights and values are multiplied.
            plan: The method's plan for these rows.
            query_positions: (B, T) int64, the only queries of each row that are computed. None: all.
            dropout: Probability with which a weight is dropped; 0 outside training.
            observer: Sees how weights are shared, before dropout.

        Returns:
            (B, L, E), or (B, T, E) at ``query_positions``; zero for a query that sees no key.
        """
        ...
