"""RoPE stretched over documents longer than those of training. Training-free.

The extension factor s = max(1, n / train_length) is each document's own, from its number n of real tokens: not from
the padded width, not from the batch, not from an earlier call. At or below train_length all of these are plain RoPE.
Nothing changes for a bidirectional model.

B batch (1 where all rows agree), L length, D key size.
"""

import math

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import require_train_length
from gau_alpha.position.base import RoPE, exact_dtype, frequencies
from gau_alpha.untrusted.limits import require_number, require_whole


class ExtendedRoPE(RoPE):
    """What extensions of RoPE share: their factor.

    Args:
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.
        factor: A fixed s for documents of every length, as a model fine-tuned to one target length has it. Left out,
            s is each document's own.

    Raises:
        ValueError: If ``base`` is not above 1, or ``factor`` is below 1.
    """

    def __init__(self, train_length: int | None = None, base: float = 10_000.0, factor: float | None = None) -> None:
        super().__init__(base)
        if factor is not None:
            require_number("factor", factor, least=1, why="below, positions would be spread apart")
        if train_length is not None:
            require_whole("train_length", train_length)
        self.train_length = train_length
        self.factor = factor

    def extension(self, layout: SequenceLayout) -> Tensor:
        """Compute s for each token's document, (B|1, L, 1) float64."""
        dtype = exact_dtype(layout.device)
        if self.factor is not None:
            return torch.full((1, 1, 1), self.factor, device=layout.device, dtype=dtype)
        train_length = require_train_length(self, self.train_length)
        return (layout.document_length.to(dtype) / train_length).clamp_min(1.0)[..., None]  # (B|1, L, 1)


class PositionInterpolation(ExtendedRoPE):
    """Angle (p / s) · base^(−2m/d) (Chen et al. 2023, arXiv 2306.15595, eq. 4).

    All positions fall into the range of training, at the price of neighbours that are closer than ever seen.
    """

    paper = "arXiv 2306.15595"

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute (p / s) · base^(−2m/d)."""
        return positions[..., None] / self.extension(layout) * frequencies(self.base, key_size, layout.device)


class NTKAware(ExtendedRoPE):
    """RoPE with base · s^(d/(d−2)) (bloc97 2023, "NTK-aware scaled RoPE"; arXiv 2309.00071, eq. 13).

    The slowest pair is interpolated by s, the fastest not at all.
    """

    paper = "arXiv 2309.00071, sec. 3.1"

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute p · (base · s^(d/(d−2)))^(−2m/d)."""
        return positions[..., None] * _frequencies_of(self.base, self.stretch(layout), key_size)

    def stretch(self, layout: SequenceLayout) -> Tensor:
        """Compute what the base is stretched for, (B|1, L, 1)."""
        return self.extension(layout)


class DynamicNTK(NTKAware):
    """RoPE with base · (a·s − (a − 1))^(d/(d−2)), the "dynamic NTK" of common libraries (arXiv 2309.00071, sec. 3.3).

    Args:
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.
        alpha: a; with 1 it is ``NTKAware``.

    Raises:
        ValueError: If ``base`` is not above 1, or ``alpha`` is below 1.
    """

    paper = "arXiv 2309.00071, sec. 3.3"

    def __init__(self, train_length: int | None = None, base: float = 10_000.0, alpha: float = 2.0) -> None:
        super().__init__(train_length, base)
        require_number("alpha", alpha, least=1)
        self.alpha = alpha

    def stretch(self, layout: SequenceLayout) -> Tensor:
        """Compute a·s − (a − 1)."""
        return self.alpha * self.extension(layout) - (self.alpha - 1)


class YaRN(ExtendedRoPE):
    """RoPE with fast pairs as they are, slow ones interpolated by s, a ramp between (Peng et al., arXiv 2309.00071).

    The ramp is linear in the pair's number, between the pairs that turn ``beta_fast`` and ``beta_slow`` times within
    train_length, as in the authors' code (the paper's eq. 18 states it over the number of turns instead). YaRN's
    temperature is a scaling of its own, ``YaRNTemperature``: cosines and sines carry no factor here, so that it is not
    counted twice.

    Args:
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.
        factor: A fixed s; left out, each document's own.
        beta_fast: Pairs that turn more often than this within train_length stay as they are.
        beta_slow: Pairs that turn less often are interpolated by s.

    Raises:
        ValueError: If ``base`` is not above 1, ``factor`` is below 1, or not 0 < ``beta_slow`` < ``beta_fast``.
    """

    paper = "arXiv 2309.00071"

    def __init__(
        self,
        train_length: int | None = None,
        base: float = 10_000.0,
        factor: float | None = None,
        beta_fast: float = 32.0,
        beta_slow: float = 1.0,
    ) -> None:
        super().__init__(train_length, base, factor)
        require_number("beta_fast", beta_fast, above=0)
        require_number("beta_slow", beta_slow, above=0)
        if not beta_slow < beta_fast:
            raise ValueError(f"0 < beta_slow < beta_fast is needed, got {beta_slow} and {beta_fast}.")
        self.beta_fast = beta_fast
        self.beta_slow = beta_slow

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute p · ((1 − ramp) + ramp / s) · base^(−2m/d)."""
        ramp = self._ramp(key_size, layout.device)  # (D/2,)
        share = (1 - ramp) + ramp / self.extension(layout)  # (B|1, L, D/2)
        return positions[..., None] * share * frequencies(self.base, key_size, layout.device)

    def _ramp(self, key_size: int, device: torch.device) -> Tensor:
        first = max(math.floor(self._pair_turning(self.beta_fast, key_size)), 0)
        last = min(math.ceil(self._pair_turning(self.beta_slow, key_size)), key_size - 1)
        pair = torch.arange(key_size // 2, device=device, dtype=exact_dtype(device))
        return ((pair - first) / max(last - first, 0.001)).clamp(0, 1)  # (D/2,)

    def _pair_turning(self, turns: float, key_size: int) -> float:
        """Return the (fractional) number of the pair that turns so often within train_length."""
        train_length = require_train_length(self, self.train_length)
        return key_size * math.log(train_length / (turns * 2 * math.pi)) / (2 * math.log(self.base))


def _frequencies_of(base: float, stretch: Tensor, key_size: int) -> Tensor:
    """Compute RoPE's frequencies for a base that was stretched, (B|1, L, 1) to (B|1, L, D/2)."""
    if key_size <= 2:
        raise ValueError(f"attention_key_size must be at least 4 to stretch RoPE's base, got {key_size}.")
    pair = torch.arange(key_size // 2, device=stretch.device, dtype=stretch.dtype)
    stretched = base * stretch ** (key_size / (key_size - 2))
    return stretched ** (-2 * pair / key_size)
