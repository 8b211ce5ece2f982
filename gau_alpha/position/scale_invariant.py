"""Scores whose spread grows and whose level falls with the distance. The model has to be trained with it.

Published for causal models; here the distance is |j − i|, alike to both sides.
"""

import torch
from torch import Tensor

from gau_alpha.position.rope import PartialRoPE
from gau_alpha.untrusted.limits import require_number


class ScaleInvariant(PartialRoPE):
    """√(1 + 2 ln(t/s + 1)) · similarity − 2 ln(t/s + 1), t = |j − i|, over p-RoPE (arXiv 2505.17083, sec. 3).

    "Scale-invariant attention" (Anson, Wang and Aitchison 2025): if similarities are standard normal, keys 10 to 100
    tokens away get as much attention together as those 100 to 1,000 tokens away, and spread it over few.

    Args:
        distance_scale: s in tokens, over which scores are hardly changed; 10 in the paper.
        rotated_fraction: Share of the pairs that turn, as ``fraction`` of ``PartialRoPE``.
        base: As in ``RoPE``.

    Raises:
        ValueError: If ``distance_scale`` is not positive, ``rotated_fraction`` is not between 0 and 1 or ``base`` is
            not above 1.
    """

    biased = True
    gained = True
    paper = "arXiv 2505.17083"

    def __init__(self, distance_scale: float = 10.0, rotated_fraction: float = 0.75, base: float = 10_000.0) -> None:
        require_number("rotated_fraction", rotated_fraction, least=0, most=1)
        super().__init__(rotated_fraction, base)
        require_number("distance_scale", distance_scale, above=0)
        self.distance_scale = distance_scale
        self.rotated_fraction = rotated_fraction

    def gain(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute √(1 + 2 ln(t/s + 1))."""
        return (1 + self._twice_the_logarithm(distance)).sqrt()

    def bias(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute −2 ln(t/s + 1)."""
        return -self._twice_the_logarithm(distance)

    def _twice_the_logarithm(self, distance: Tensor) -> Tensor:
        return 2 * torch.log1p(distance.abs() / self.distance_scale)
