"""The temperature that keeps attention entropy for random keys: the strategy ``RandomKeysScale`` of ``scaling``.

K layers, M lengths of the table, n keys.
"""

import copy
import math
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from gau_alpha.attention.strategy import require_train_length
from gau_alpha.scaling.base import Scaling, at_least_one
from gau_alpha.untrusted.limits import require_number, require_whole
from gau_alpha.untrusted.registry import shown

MARGIN = 0.2
"""Nats that the entropy in training has to lie below ln n_train: even attention has that at any sharpness near 0."""

_LEAST = 0.01  # nats; attention on a single key has them at any sharpness that is large enough
_LONGEST = 2**17  # keys; τ goes on as between the last two lengths of the table
_ANGLES = 2**16
_PRECISION = 1e-7  # nats
_MOST_STEPS = 100


class RandomKeysScale(Scaling):
    """τ(n) at which keys drawn uniformly on a sphere leave attention the entropy that it had in training.

    With F the distribution of cos θ between a query and such a key in d dimensions, n keys have the cosines
    t_i = F⁻¹((i − ½) / n), and H(n, s) is the entropy of softmax(s · t). s_n solves H(n, s_n) = H₀, and
    τ(n) = s_n / s_train: a function of n, d and H₀ alone. Up to n_train it is 1, beyond it is tabulated over ln n.

    Where InfoScale has one curve for all layers, this has one for each. It is ``CalibratedScale`` without the text, and
    so an idealization: real keys are no random ones. Training-free. n is the number of visible keys, which H₀ was
    measured with; there is no other ``count``.

    Left without entropies it computes nothing: ``gau-alpha calibrate`` measures them, and ``gau-alpha extrapolate
    --methods random_keys`` fills them in.

    Args:
        entropy: (K) H₀ in nats: mean attention entropy of every layer at train_length, as ``gau-alpha calibrate``
            measures it, or one number that serves all layers.
        train_length: n_train, tokens per training row. Left out, it is taken from the data.

    Raises:
        ValueError: If an entropy is below 0.01 nats or within 0.2 of ln n_train, which any small enough sharpness
            would have, or ``train_length`` is below 2.
    """

    def __init__(self, entropy: list[float] | None = None, train_length: int | None = None) -> None:
        super().__init__()
        self.entropy = entropy
        self.train_length = train_length
        self._layer: int | None = None
        if entropy is None:
            return
        if not isinstance(entropy, list | tuple) or not entropy:
            raise ValueError(f"entropy must be a list of numbers, one per layer or one for all, got {shown(entropy)}.")
        for value in entropy:
            require_number("Each of entropy", value, least=_LEAST)
        self._check_entropy()

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length``.

        Raises:
            ValueError: If an entropy is too close to its logarithm, or the strategy was built with another.
        """
        bound = super().with_train_length(train_length)
        bound._check_entropy()
        return bound

    def for_layer(self, layer: int, num_layers: int) -> Self:
        """Return the strategy with the entropy of one layer.

        Raises:
            ValueError: If entropies were given for another number of layers.
        """
        if self.entropy is None or len(self.entropy) == 1:
            return self
        if len(self.entropy) != num_layers:
            raise ValueError(
                f"RandomKeysScale has entropies for {len(self.entropy)} layers, the model has {num_layers}: give one "
                f"per layer, or one for all."
            )
        own = copy.copy(self)
        own._layer = layer
        return own

    def temperature(self, num_visible_keys: Tensor, key_size: int) -> Tensor:
        """Interpolate s_n / s_train in ln n.

        Raises:
            ValueError: If there are no entropies, or there is one per layer and nobody said which layer this is.
        """
        if self.entropy is None:
            raise ValueError(
                "RandomKeysScale has no entropies yet: measure them with `gau-alpha calibrate --ckpt_path …` and "
                "evaluate it with `gau-alpha extrapolate --methods random_keys`."
            )
        if self._layer is None and len(self.entropy) > 1:
            raise ValueError("RandomKeysScale has an entropy per layer: take the method of a layer, `for_layer`.")
        train_length = require_train_length(self, self.train_length)
        lengths, temperatures = _table(self.entropy[self._layer or 0], train_length, key_size)
        at = torch.tensor(lengths, dtype=torch.float32, device=num_visible_keys.device).log()  # (M,)
        tau = torch.tensor(temperatures, dtype=torch.float32, device=num_visible_keys.device)  # (M,)
        x = torch.maximum(at_least_one(num_visible_keys).log(), at[0])
        right = torch.searchsorted(at, x).clamp(1, len(lengths) - 1)  # index of the upper end of the piece
        share = (x - at[right - 1]) / (at[right] - at[right - 1])
        return torch.lerp(tau[right - 1], tau[right], share)

    def _check_entropy(self) -> None:
        if self.train_length is None or self.entropy is None:
            return
        require_whole("train_length", self.train_length, least=2, why="a row of 1 token has no entropy to keep")
        most = math.log(self.train_length) - MARGIN
        for layer, value in enumerate(self.entropy):
            if value > most:
                raise ValueError(
                    f"entropy is {value:.3f} nats in layer {layer}, within {MARGIN} of ln train_length = "
                    f"{most + MARGIN:.3f}: such even attention does not say how sharp it is. At most {most:.3f} nats "
                    f"can be kept; leave this layer unscaled, or measure one with `gau-alpha calibrate`."
                )


@lru_cache(maxsize=64)
def cosines(n: int, key_size: int) -> Tensor:
    """Return F⁻¹((i − ½) / n) for i = 1 … n: cosines that stand for n random keys.

    The density of the angle θ is proportional to sin^(d−2) θ.

    Args:
        n: Keys.
        key_size: d, at least 2.

    Returns:
        (n,) float64, ascending; not to be written to, since calls share it.
    """
    angle = torch.linspace(math.pi, 0, _ANGLES + 1, dtype=torch.float64)
    middle = (angle[1:] + angle[:-1]) / 2  # (A,)
    below = (middle.sin().log() * (key_size - 2)).exp().cumsum(0)  # (A,)
    below = torch.nn.functional.pad(below / below[-1], (1, 0))  # (A + 1,), F at cos angle
    wanted = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # (n,)
    right = torch.searchsorted(below, wanted).clamp(1, _ANGLES)
    share = (wanted - below[right - 1]) / (below[right] - below[right - 1])
    return torch.lerp(angle[right - 1], angle[right], share).cos()


def entropy_at(sharpness: float, cosine: Tensor) -> float:
    """Return the entropy of softmax(sharpness · cosine) in nats.

    Args:
        sharpness: s.
        cosine: (n,) float64.
    """
    score = sharpness * cosine
    return float(score.logsumexp(0) - score.softmax(0) @ score)


@lru_cache(maxsize=1024)
def _table(entropy: float, train_length: int, key_size: int) -> tuple[list[int], list[float]]:
    """Solve at train_length · 2^m keys, up to ``_LONGEST`` and for three lengths at least."""
    lengths = [train_length, 2 * train_length, 4 * train_length]
    while lengths[-1] < _LONGEST:
        lengths.append(2 * lengths[-1])
    solved = [1.0]
    for n in lengths:
        solved.append(_solve(entropy, cosines(n, key_size), start=solved[-1]))
    return lengths, [s / solved[1] for s in solved[1:]]


def _solve(entropy: float, cosine: Tensor, start: float) -> float:
    """Find the sharpness of an entropy by Newton's method in ln s, kept between the ends that are known.

    Entropy falls with sharpness: dH / d ln s = −s² · Var(t), the variance taken under the weights.
    """
    x, low, high = math.log(start), -math.inf, math.inf
    for _ in range(_MOST_STEPS):
        weights = (math.exp(x) * cosine).softmax(0)  # (n,)
        excess = entropy_at(math.exp(x), cosine) - entropy
        if abs(excess) < _PRECISION:
            break
        low, high = (x, high) if excess > 0 else (low, x)
        variance = float(weights @ cosine**2 - (weights @ cosine) ** 2)
        step = excess / max(math.exp(2 * x) * variance, 1e-9)
        x += max(-1.0, min(1.0, step))
        if not low < x < high:
            x = (low + high) / 2
    return math.exp(x)
