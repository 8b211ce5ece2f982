"""The temperature of the scores as a function of the number of visible keys: the axis ``scaling``.

To add one: subclass ``Scaling`` and implement ``temperature``. ``tests/gau_alpha/test_strategies.py`` finds the class
by itself.

B batch, L length.
"""

import math

import torch
from torch import Tensor

from gau_alpha.strategy import Strategy, require_train_length


class Scaling(Strategy):
    """A factor τ(n) on every score of a query that sees n keys."""

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

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Return ones."""
        return torch.ones_like(num_visible_keys, dtype=torch.float32)


class LogLength(Scaling):
    """τ(n) = max(minimum, ln n / ln base): attention entropy grows with ln n, so the scores do too.

    With base 512 and no minimum this is the "softmax_plus" that GAU-α was released with (Su 2021, "Entropy invariance
    of attention"). With ``minimum: 1`` and base = train_length it is LogN, as ReRoPE and Qwen use it without training.

    Args:
        base: The number of keys at which τ = 1.
        minimum: τ never falls below it.

    Raises:
        ValueError: If ``base`` is not above 1 or ``minimum`` is negative.
    """

    def __init__(self, base: float = 512.0, minimum: float = 0.0) -> None:
        super().__init__()
        if not base > 1:
            raise ValueError(f"base must be above 1, where ln base is positive, got {base}.")
        _require_minimum(minimum)
        self.base = base
        self.minimum = minimum

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute max(minimum, ln n / ln base)."""
        return (_at_least_one(num_visible_keys).log() / math.log(self.base)).clamp_min(self.minimum)


class InfoScale(Scaling):
    """τ(n) = √(1 − n^(−2/d)) / √(1 − n_train^(−2/d)), training-free.

    From "Information Entropy Invariance", arXiv 2501.08570, InfoScale: keeps the entropy of attention where it was at
    the training length, for keys that are uniform on a sphere of dimension d. τ(n_train) = 1; below it τ is below 1,
    which is exact and intended.

    Args:
        train_length: n_train, tokens per training row. Left out, it is taken from the data.
        minimum: τ never falls below it. The paper's formula has no minimum.

    Raises:
        ValueError: If ``train_length`` is below 2 or ``minimum`` is negative.
    """

    def __init__(self, train_length: int | None = None, minimum: float = 0.0) -> None:
        super().__init__()
        if train_length is not None and train_length < 2:
            raise ValueError(f"train_length must be at least 2, where InfoScale is defined, got {train_length}.")
        _require_minimum(minimum)
        self.train_length = train_length
        self.minimum = minimum

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute √(1 − n^(−2/d)) / √(1 − n_train^(−2/d))."""
        train_length = require_train_length(self, self.train_length)
        reference = torch.full((), train_length, device=num_visible_keys.device)
        tau = _spread(num_visible_keys, key_size) / _spread(reference, key_size)
        return tau.clamp_min(self.minimum)


def _spread(n: Tensor, key_size: int) -> Tensor:
    # 1 − n^(−2/d) loses all its digits for large d when written as a difference.
    return (-torch.expm1(-2 / key_size * _at_least_one(n).log())).sqrt()


def _at_least_one(n: Tensor) -> Tensor:
    # A query without visible keys has no scores to scale; ln 0 must still not reach the arithmetic.
    return n.clamp_min(1).float()


def _require_minimum(minimum: float) -> None:
    if not minimum >= 0:
        raise ValueError(f"minimum must be 0 or more, got {minimum}: a negative temperature reverses attention.")
