"""The temperature of the scores as a function of the number of visible keys: the axis ``scaling``.

To add one: subclass ``Scaling`` and implement ``temperature``. ``tests/gau_alpha/test_strategies.py`` finds the class
by itself.

B batch, L length.
"""

import math
from typing import Self, cast

import torch
from torch import Tensor, nn

from gau_alpha.strategy import Strategy, require_positive, require_train_length


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
        base: The number of keys at which τ = 1. None takes the data's train_length.
        minimum: τ never falls below it.

    Raises:
        ValueError: If ``base`` is not above 1 or ``minimum`` is negative.
    """

    paper = "Su 2021, Entropy invariance of attention"

    def __init__(self, base: float | None = 512.0, minimum: float = 0.0) -> None:
        super().__init__()
        if base is not None and not base > 1:
            raise ValueError(f"base must be above 1, where ln base is positive, got {base}.")
        _require_minimum(minimum)
        self.base = base
        self.minimum = minimum

    def bound(self, train_length: int) -> Self:
        """Fill in ``train_length`` for a base of None."""
        return self if self.base is not None else type(self)(train_length, self.minimum)

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute max(minimum, ln n / ln base)."""
        base = require_train_length(self, self.base)
        return (_at_least_one(num_visible_keys).log() / math.log(base)).clamp_min(self.minimum)


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

    paper = "arXiv 2501.08570"

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


class YaRNTemperature(Scaling):
    """τ(n) = (0.1 ln s + 1)², s = max(1, n / n_train), training-free (Peng et al., arXiv 2309.00071, eq. 22).

    The paper multiplies queries and keys by 0.1 ln s + 1 each; a score carries it twice. Here it stands once, as a
    temperature, and ``YaRN``'s rotations carry none of it.

    Args:
        train_length: n_train, tokens per training row. Left out, it is taken from the data.
        factor: A fixed s, as in ``YaRN``. Left out, it follows n.

    Raises:
        ValueError: If ``factor`` is below 1.
    """

    paper = "arXiv 2309.00071"

    def __init__(self, train_length: int | None = None, factor: float | None = None) -> None:
        super().__init__()
        if factor is not None and not factor >= 1:
            raise ValueError(f"factor must be at least 1, got {factor}.")
        self.train_length = train_length
        self.factor = factor

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute (0.1 ln s + 1)²."""
        if self.factor is not None:
            s = torch.full_like(num_visible_keys, self.factor, dtype=torch.float32)
        else:
            s = (num_visible_keys.float() / require_train_length(self, self.train_length)).clamp_min(1.0)
        return (0.1 * s.log() + 1) ** 2


class ScalableSoftmax(Scaling):
    """τ(n) = s · ln n (+ b), s learned in each layer (Nakanishi 2025, SSMax, arXiv 2501.19399, eq. 3 and sec. 3.2).

    s starts at 1 / ln train_length, so that training begins with τ(train_length) = 1.

    Args:
        bias: Whether b is learned too; it starts at 0.
        train_length: Tokens per training row. Left out, it is taken from the data.

    Raises:
        ValueError: If ``train_length`` is below 2.
    """

    training_free = False
    paper = "arXiv 2501.19399"

    def __init__(self, bias: bool = False, train_length: int | None = None) -> None:
        super().__init__()
        if train_length is not None and train_length < 2:
            raise ValueError(f"train_length must be at least 2, where ln is positive, got {train_length}.")
        self.bias = bias
        self.train_length = train_length
        self.s = nn.Parameter(torch.tensor(1 / math.log(train_length or math.e)))
        self.b = nn.Parameter(torch.tensor(0.0)) if bias else None

    def bound(self, train_length: int) -> Self:
        """Fill in ``train_length`` and start s from it, unless it is known already."""
        bound = super().bound(train_length)
        if bound is not self:
            nn.init.constant_(bound.s, 1 / math.log(train_length))
        return bound

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute s · ln n (+ b)."""
        tau = self.s.float() * _at_least_one(num_visible_keys).log()
        return tau if self.b is None else tau + self.b.float()


class Llama4Temperature(Scaling):
    """τ(n) = 1 + α · ln(⌊n / floor_scale⌋ + 1), training-free ("attention temperature tuning" of Llama 4, 2025).

    Published over the position of a causal query, which is the number of keys it sees.

    Args:
        alpha: α.
        floor_scale: Below so many keys τ is 1; 8,192 in Llama 4. Left out, train_length + 1: the first length beyond
            training.

    Raises:
        ValueError: If ``alpha`` is negative or ``floor_scale`` not positive.
    """

    paper = "Llama 4, 2025"

    def __init__(self, alpha: float = 0.1, floor_scale: int | None = None) -> None:
        super().__init__()
        if not alpha >= 0:
            raise ValueError(f"alpha must be 0 or more, got {alpha}.")
        if floor_scale is not None:
            require_positive("floor_scale", floor_scale)
        self.alpha = alpha
        self.floor_scale = floor_scale

    def bound(self, train_length: int) -> Self:
        """Fill in train_length + 1 for a ``floor_scale`` that was left out."""
        if self.floor_scale is not None:
            return self
        return type(self)(self.alpha, train_length + 1)

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute 1 + α · ln(⌊n / floor_scale⌋ + 1)."""
        floor_scale = require_train_length(self, self.floor_scale)
        return 1 + self.alpha * (num_visible_keys // floor_scale + 1).float().log()


class Product(Scaling):
    """τ(n) = Π τ_i(n): several scalings at once, such as InfoScale over YaRN's own temperature.

    Args:
        scalings: The factors, one or more.

    Raises:
        ValueError: If there is none.
    """

    def __init__(self, scalings: list[Scaling]) -> None:
        super().__init__()
        if not scalings:
            raise ValueError("scalings is empty: a product needs at least one factor.")
        self.scalings = nn.ModuleList(scalings)
        self.training_free = all(scaling.training_free for scaling in scalings)
        self.paper = ", ".join(scaling.paper for scaling in scalings if scaling.paper)

    def bound(self, train_length: int) -> Self:
        """Fill in ``train_length`` in every factor."""
        bound = [scaling.bound(train_length) for scaling in self.factors()]
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


def _spread(n: Tensor, key_size: int) -> Tensor:
    # 1 − n^(−2/d) loses all its digits for large d when written as a difference.
    return (-torch.expm1(-2 / key_size * _at_least_one(n).log())).sqrt()


def _at_least_one(n: Tensor) -> Tensor:
    # A query without visible keys has no scores to scale; ln 0 must still not reach the arithmetic.
    return n.clamp_min(1).float()


def _require_minimum(minimum: float) -> None:
    if not minimum >= 0:
        raise ValueError(f"minimum must be 0 or more, got {minimum}: a negative temperature reverses attention.")
