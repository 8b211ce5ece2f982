"""Rotary position embedding as it was published, and none at all.

B batch (1 where all rows agree), L length, D key size.
"""

from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.position.base import Position, Rotary, frequencies
from gau_alpha.untrusted.limits import require_number


class RoPE(Rotary):
    """Angle p · base^(−2m/d) at position p for pair m (Su et al. 2021, RoFormer, arXiv 2104.09864, eq. 15).

    Unchanged for a bidirectional model: a key to the left and one to the right turn in opposite directions.

    Args:
        base: The slowest pair turns once in about 2π · base tokens.

    Raises:
        ValueError: If ``base`` is not above 1.
    """

    paper = "arXiv 2104.09864"

    def __init__(self, base: float = 10_000.0) -> None:
        super().__init__()
        require_number("base", base, above=1)
        self.base = base

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute p · base^(−2m/d)."""
        return positions[..., None] * frequencies(self.base, key_size, positions.device)


class NoPosition(Position):
    """No rotation and no bias: the score knows nothing of where the key stands.

    "NoPE" (Kazemnejad et al. 2023, arXiv 2305.19466) works for causal models, whose mask tells positions apart. A
    bidirectional model without positions sees a bag of tokens; this is here to measure what positions are worth. The
    model has to be trained with it.
    """

    training_free = False
    paper = "arXiv 2305.19466"
