"""What a scaling is, none at all, and several at once.

B batch, L length.
"""

from typing import Literal, Self, cast, get_args

import torch
from torch import Tensor, nn

from gau_alpha.attention.strategy import Strategy
from gau_alpha.untrusted.registry import shown

Count = Literal["visible", "length"]
"""What n is: the keys that a query sees, or the real tokens of its document, hidden by a window or not."""


class Scaling(Strategy):
    """A factor τ(n) on every score of a query that sees n keys.

    Args:
        count: What n is. ``visible``: the keys that the query sees. ``length``: the real tokens of its document, as
            the code published with arXiv 2501.08570 has it; the two differ under a window. A subclass that leaves the
            argument out counts visible keys.

    Raises:
        ValueError: If ``count`` is neither.
    """

    count: Count

    def __init__(self, count: Count = "visible") -> None:
        super().__init__()
        if count not in get_args(Count):
            raise ValueError(f"count must be one of: {', '.join(get_args(Count))}; got {shown(count)}.")
        self.count = count

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute τ(n).

        Args:
            num_visible_keys: n, integers of any shape (the model passes (B|1, L)).
            key_size: d, the width of queries and keys.

        Returns:
            τ(n), float32, of the same shape.
        """
        raise NotImplementedError


class NoScaling(Scaling):
    """τ(n) = 1."""

    def __init__(self) -> None:
        super().__init__()  # no count: it would change nothing

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Return ones."""
        return torch.ones_like(num_visible_keys, dtype=torch.float32)


class Product(Scaling):
    """τ(n) = Π τ_i(n): several scalings at once, such as InfoScale over YaRN's own temperature.

    Args:
        scalings: The factors, one or more, all with the same ``count``, which is the product's.

    Raises:
        ValueError: If there is none, or their counts differ.
    """

    def __init__(self, scalings: list[Scaling]) -> None:
        super().__init__()
        if not isinstance(scalings, list | tuple) or not all(isinstance(one, Scaling) for one in scalings):
            raise ValueError(f"scalings must be a list of scalings, got {scalings!r}.")
        if not scalings:
            raise ValueError("scalings is empty: a product needs at least one factor.")
        counts = sorted({one.count for one in scalings if not isinstance(one, NoScaling)})
        if len(counts) > 1:
            raise ValueError(f"scalings count {' and '.join(counts)}: give all factors of a product the same count.")
        self.count = counts[0] if counts else "visible"
        self.scalings = nn.ModuleList(scalings)
        self.training_free = all(scaling.training_free for scaling in scalings)
        self.paper = ", ".join(scaling.paper for scaling in scalings if scaling.paper)

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length`` in every factor."""
        bound = [scaling.with_train_length(train_length) for scaling in self.factors()]
        unchanged = all(new is old for new, old in zip(bound, self.scalings, strict=True))
        return self if unchanged else type(self)(bound)

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Multiply the factors' temperatures."""
        tau = torch.ones_like(num_visible_keys, dtype=torch.float32)
        for scaling in self.factors():
            tau = tau * scaling.temperature(num_visible_keys, key_size)
        return tau

    def factors(self) -> list[Scaling]:
        """The factors, in order."""
        return [cast(Scaling, scaling) for scaling in self.scalings]


def at_least_one(n: Tensor) -> Tensor:
    """Return n as float32, 1 for queries without visible keys.

    Args:
        n: (…) numbers of visible keys.

    Returns:
        (…) float32.
    """
    # A query without visible keys has no scores to scale; ln 0 must still not reach the arithmetic.
    return n.clamp_min(1).float()
