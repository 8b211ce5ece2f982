"""Temperatures that follow from the number of visible keys by a formula.

B batch, L length.
"""

import math
from typing import Self

import torch
from torch import Tensor

from gau_alpha.attention.strategy import require_train_length
from gau_alpha.scaling.base import Count, Scaling, at_least_one
from gau_alpha.untrusted.limits import require_number, require_whole


class LogLength(Scaling):
    """τ(n) = max(minimum, ln n / ln base): attention entropy grows with ln n, so the scores do too.

    With base 512 and no minimum this is the "softmax_plus" that GAU-α was released with (Su 2021, "Entropy invariance
    of attention"). With ``minimum: 1`` and base = train_length it is LogN, as ReRoPE and Qwen use it without training.

    Args:
        base: The number of keys at which τ = 1. None takes the data's train_length.
        minimum: τ never falls below it.
        count: What n is, as in ``Scaling``.

    Raises:
        ValueError: If ``base`` is not above 1, ``minimum`` is negative or ``count`` unknown.
    """

    paper = "Su 2021, Entropy invariance of attention"

    def __init__(self, base: float | None = 512.0, minimum: float = 0.0, count: Count = "visible") -> None:
        super().__init__(count)
        if base is not None:
            require_number("base", base, above=1, why="ln base has to be positive")
        _require_minimum(minimum)
        self.base = base
        self.minimum = minimum

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length`` for a base of None."""
        return self if self.base is not None else type(self)(train_length, self.minimum, self.count)

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute max(minimum, ln n / ln base)."""
        base = require_train_length(self, self.base)
        return (at_least_one(num_visible_keys).log() / math.log(base)).clamp_min(self.minimum)


class InfoScale(Scaling):
    """τ(n) = √(1 − n^(−2/d)) / √(1 − n_train^(−2/d)), training-free.

    From "Information Entropy Invariance", arXiv 2501.08570, InfoScale. √(1 − n^(−2/d)) is about the largest cosine that
    n keys uniform on a sphere of dimension d have with a query: τ follows that, and entropy grows with n all the same,
    though more slowly (``RandomKeysScale`` is what keeps it for such keys). τ(n_train) = 1; below it τ is below 1,
    which is exact and intended.

    Args:
        train_length: n_train, tokens per training row. Left out, it is taken from the data.
        minimum: τ never falls below it. The paper's formula has no minimum.
        count: What n is, as in ``Scaling``.

    Raises:
        ValueError: If ``train_length`` is below 2, ``minimum`` is negative or ``count`` unknown.
    """

    paper = "arXiv 2501.08570"

    def __init__(self, train_length: int | None = None, minimum: float = 0.0, count: Count = "visible") -> None:
        super().__init__(count)
        if train_length is not None:
            _require_two(train_length)
        _require_minimum(minimum)
        self.train_length = train_length
        self.minimum = minimum

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length``.

        Raises:
            ValueError: If it is below 2, or the strategy was built with another.
        """
        _require_two(train_length)
        return super().with_train_length(train_length)

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
        count: What n is, as in ``Scaling``.

    Raises:
        ValueError: If ``factor`` is below 1 or ``count`` unknown.
    """

    paper = "arXiv 2309.00071"

    def __init__(self, train_length: int | None = None, factor: float | None = None, count: Count = "visible") -> None:
        super().__init__(count)
        if factor is not None:
            require_number("factor", factor, least=1)
        if train_length is not None:
            require_whole("train_length", train_length)
        self.train_length = train_length
        self.factor = factor

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute (0.1 ln s + 1)²."""
        if self.factor is not None:
            s = torch.full_like(num_visible_keys, self.factor, dtype=torch.float32)
        else:
            s = (num_visible_keys.float() / require_train_length(self, self.train_length)).clamp_min(1.0)
        return (0.1 * s.log() + 1) ** 2


class Llama4Temperature(Scaling):
    """τ(n) = 1 + α · ln(⌊n / floor_scale⌋ + 1), training-free ("attention temperature tuning" of Llama 4, 2025).

    Published over the position of a causal query, which is the number of keys it sees.

    Args:
        alpha: α.
        floor_scale: Below so many keys τ is 1; 8,192 in Llama 4. Left out, train_length + 1: the first length beyond
            training.
        count: What n is, as in ``Scaling``.

    Raises:
        ValueError: If ``alpha`` is negative, ``floor_scale`` not positive or ``count`` unknown.
    """

    paper = "Llama 4, 2025"

    def __init__(self, alpha: float = 0.1, floor_scale: int | None = None, count: Count = "visible") -> None:
        super().__init__(count)
        require_number("alpha", alpha, least=0)
        if floor_scale is not None:
            require_whole("floor_scale", floor_scale)
        self.alpha = alpha
        self.floor_scale = floor_scale

    def with_train_length(self, train_length: int) -> Self:
        """Fill in train_length + 1 for a ``floor_scale`` that was left out."""
        if self.floor_scale is not None:
            return self
        return type(self)(self.alpha, train_length + 1, self.count)

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute 1 + α · ln(⌊n / floor_scale⌋ + 1)."""
        floor_scale = require_train_length(self, self.floor_scale)
        return 1 + self.alpha * (num_visible_keys // floor_scale + 1).float().log()


class ConstantTemperature(Scaling):
    """The same τ at every length, training-free ("TempScale", arXiv 2410.24200).

    Args:
        tau: τ; above 1 attention is sharper than in training, at the training length too.
        count: What n is, as in ``Scaling``; here it makes no difference.

    Raises:
        ValueError: If ``tau`` is not positive or ``count`` unknown.
    """

    paper = "arXiv 2410.24200"

    def __init__(self, tau: float, count: Count = "visible") -> None:
        super().__init__(count)
        require_number("tau", tau, above=0)
        self.tau = tau

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Return τ for every n."""
        return torch.full_like(num_visible_keys, self.tau, dtype=torch.float32)


class LogTemperature(Scaling):
    """τ(n) = 1 + c · ln(max(1, n / n_train)), training-free (as DroPE fits it to the loss, arXiv 2512.12167).

    Args:
        c: How fast τ grows. Llama 4's has 0.1, in steps.
        train_length: n_train, tokens per training row. Left out, it is taken from the data.
        count: What n is, as in ``Scaling``.

    Raises:
        ValueError: If ``c`` is negative or ``count`` unknown.
    """

    paper = "arXiv 2512.12167"

    def __init__(self, c: float, train_length: int | None = None, count: Count = "visible") -> None:
        super().__init__(count)
        require_number("c", c, least=0)
        if train_length is not None:
            require_whole("train_length", train_length)
        self.c = c
        self.train_length = train_length

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Compute 1 + c · ln(max(1, n / n_train))."""
        train_length = require_train_length(self, self.train_length)
        return 1 + self.c * (num_visible_keys.float() / train_length).clamp_min(1.0).log()


def _spread(n: Tensor, key_size: int) -> Tensor:
    # 1 − n^(−2/d) loses all its digits for large d when written as a difference.
    return (-torch.expm1(-2 / key_size * at_least_one(n).log())).sqrt()


def _require_minimum(minimum: float) -> None:
    require_number("minimum", minimum, least=0, why="a negative temperature reverses attention")


def _require_two(train_length: int) -> None:
    require_whole("train_length", train_length, least=2, why="a row of 1 token has no spread that could be kept")
