"""RoPE with some frequencies left out, or with all distances stretched.

B batch (1 where all rows agree), L length, D key size.
"""

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.position.base import RoPE, frequencies
from gau_alpha.untrusted.limits import require_number


class PartialRoPE(RoPE):
    """RoPE whose slowest frequencies are zero, so that these pairs compare content alone.

    "p-RoPE" (Barbero et al. 2024, "Round and round we go!", arXiv 2410.06205, sec. 6). The model has to be trained with
    it.

    Args:
        fraction: Share of the pairs that turn, the fastest ones; 1 is RoPE, 0 has no positions.
        base: As in ``RoPE``; frequencies are those that RoPE gives the same pairs.

    Raises:
        ValueError: If ``fraction`` is not between 0 and 1 or ``base`` not above 1.
    """

    training_free = False
    paper = "arXiv 2410.06205"

    def __init__(self, fraction: float = 0.75, base: float = 10_000.0) -> None:
        super().__init__(base)
        require_number("fraction", fraction, least=0, most=1)
        self.fraction = fraction

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute p · base^(−2m/d) for the first ⌊fraction · d / 2⌋ pairs, and 0 for the others."""
        turning = int(self.fraction * key_size // 2)
        pair = torch.arange(key_size // 2, device=positions.device)
        return positions[..., None] * frequencies(self.base, key_size, positions.device) * (pair < turning)


class StretchedPositions(RoPE):
    """RoPE at ``factor`` times the position: distances grow, and the number of keys stays.

    Tells the two troubles of long rows apart: with a factor of 64 a row of the training length has the distances of one
    64 times as long, unseen in training, and no more keys than it had. For evaluation only; a probe of this framework's
    own (2026), not a published method.

    Args:
        factor: What positions are multiplied by.
        base: As in ``RoPE``.

    Raises:
        ValueError: If ``factor`` is not positive or ``base`` not above 1.
    """

    def __init__(self, factor: float, base: float = 10_000.0) -> None:
        super().__init__(base)
        require_number("factor", factor, above=0)
        self.factor = factor

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute factor · p · base^(−2m/d)."""
        return super().angles(positions * self.factor, layout, key_size)
