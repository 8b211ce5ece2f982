"""Temperatures that the model learns.

B batch, L length.
"""

import math
from typing import Self

import torch
from torch import Tensor, nn

from gau_alpha.scaling.base import Count, Scaling, at_least_one
from gau_alpha.untrusted.limits import require_whole


class ScalableSoftmax(Scaling):
    """τ(n) = s · ln n (+ b), s learned in each layer (Nakanishi 2025, SSMax, arXiv 2501.19399, eq. 3 and sec. 3.2).

    s starts at 1 / ln train_length, so that training begins with τ(train_length) = 1.

    Args:
        bias: Whether b is learned too; it starts at 0.
        train_length: Tokens per training row. Left out, it is taken from the data.
        count: What n is, as in ``Scaling``.

    Raises:
        ValueError: If ``train_length`` is below 2 or ``count`` unknown.
    """

    training_free = False
    paper = "arXiv 2501.19399"

    def __init__(self, bias: bool = False, train_length: int | None = None, count: Count = "visible") -> None:
        super().__init__(count)
        if train_length is not None:
            _require_two(train_length)
        self.bias = bias
        self.train_length = train_length
        self.s = nn.Parameter(torch.tensor(1 / math.log(train_length or math.e)))
        self.b = nn.Parameter(torch.tensor(0.0)) if bias else None

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length`` and start s from it, unless it is known already.

        Raises:
            ValueError: If ``train_length`` is below 2, or the strategy was built with another.
        """
        _require_two(train_length)
        bound = super().with_train_length(train_length)
        if bound is not self:
            nn.init.constant_(bound.s, 1 / math.log(train_length))
        return bound

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute s · ln n (+ b)."""
        tau = self.s.float() * at_least_one(num_visible_keys).log()
        return tau if self.b is None else tau + self.b.float()


def _require_two(train_length: int) -> None:
    require_whole("train_length", train_length, least=2, why="SSMax divides by its logarithm")
