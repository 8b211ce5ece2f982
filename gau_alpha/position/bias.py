"""A bias that falls with the distance, in place of a rotation. The model has to be trained with it.

All are functions of |j − i|: published for causal models, where only keys to the left exist, they are made symmetric.

Decays that multiply instead of add (XPos, arXiv 2212.10554) are left out. They factor ζ^(i − j) into ζ^i on the query
and ζ^(−j) on the key, which grows without bound for keys to the right; ζ^|j − i| does not factor, and taken side by
side its factors leave float32 at some 10,000 tokens.

Lq and Lk queries and keys of a block.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gau_alpha.position.base import Position, exact_dtype
from gau_alpha.untrusted.limits import require_number, require_whole

_MOST = 700
"""The exponential of larger numbers leaves float64."""

_MOST_PAIRS = 2**16
"""Each pair of the embeddings is a pass over all distances."""


class ALiBi(Position):
    """−slope · |j − i| (Press et al. 2022, arXiv 2108.12409, sec. 3).

    GAU has one head, so there is one slope: that of the last of eight heads in the paper, the widest view. The bias is
    not divided by √d: it is in nats, like the scores.

    Args:
        slope: Nats per token of distance.

    Raises:
        ValueError: If ``slope`` is not positive.
    """

    biased = True
    training_free = False
    paper = "arXiv 2108.12409"

    def __init__(self, slope: float = 2.0**-8) -> None:
        super().__init__()
        require_number("slope", slope, above=0)
        self.slope = slope

    def bias(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute −slope · |j − i|."""
        return distance.abs().float() * -self.slope


class KerpleLog(Position):
    """−a · ln(1 + b · |j − i|), a and b learned in each layer (Chi et al. 2022, KERPLE, arXiv 2205.09921, eq. 8).

    Args:
        a: What a starts from.
        b: What b starts from.

    Raises:
        ValueError: If ``a`` or ``b`` is not positive, or above 700.
    """

    biased = True
    training_free = False
    paper = "arXiv 2205.09921"

    def __init__(self, a: float = 1.0, b: float = 1.0) -> None:
        super().__init__()
        require_number("a", a, above=0, most=_MOST)
        require_number("b", b, above=0, most=_MOST)
        self.a = a
        self.b = b
        # both have to stay positive, which softplus sees to
        self.raw = nn.Parameter(torch.tensor([math.log(math.expm1(a)), math.log(math.expm1(b))]))

    def bias(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute −a · ln(1 + b · |j − i|)."""
        a, b = F.softplus(self.raw.float())
        return -a * torch.log1p(b * distance.abs())


class Sandwich(Position):
    """Σ_m cos((j − i) · base^(−2m/size)) / compression (Chi et al. 2023, arXiv 2212.10356, eq. 4 and listing 1).

    The inner product of sinusoidal embeddings; it falls, wavering, with the logarithm of the distance.

    Args:
        size: Width of the sinusoidal embeddings, even; their size/2 pairs are summed.
        compression: Divides the sum; 8 is the paper's for a single head.
        base: As in ``RoPE``.

    Raises:
        ValueError: If ``size`` is no positive even number, ``compression`` not positive or ``base`` not above 1.
    """

    biased = True
    training_free = False
    paper = "arXiv 2212.10356"

    def __init__(self, size: int = 128, compression: float = 8.0, base: float = 10_000.0) -> None:
        super().__init__()
        require_whole("size", size, least=2, most=_MOST_PAIRS)
        if size % 2:
            raise ValueError(f"size must be a positive even number, got {size}.")
        require_number("compression", compression, above=0)
        require_number("base", base, above=1)
        self.size = size
        self.compression = compression
        self.base = base

    def bias(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute Σ_m cos((j − i) · base^(−2m/size)) / compression."""
        if farthest is None:
            return self._sums(distance)
        # Computed once per distance, not once per pair: a sum of 64 cosines for each score would dwarf attention.
        table = self._sums(torch.arange(farthest + 1, device=distance.device))  # (farthest + 1,)
        return table[distance.abs()]

    def _sums(self, distance: Tensor) -> Tensor:
        distance = distance.to(exact_dtype(distance.device))
        total = torch.zeros_like(distance)
        for m in range(self.size // 2):
            total += torch.cos(distance * self.base ** (-2 * m / self.size))
        return (total / self.compression).float()
