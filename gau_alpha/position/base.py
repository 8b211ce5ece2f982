"""What a position strategy is made of; rotary position embedding as it was published, and none at all.

B batch (1 where all rows agree), L length, D key size.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import Strategy
from gau_alpha.untrusted.limits import require_number


class Rotation(NamedTuple):
    """The angles by which pairs of dimensions (0, 1), (2, 3), … are turned.

    As complex numbers: one multiplication turns, and has the same digits as four real ones.

    Attributes:
        factor: (B|1, L, D/2) complex64, cos + i·sin of each angle.
    """

    factor: Tensor

    @classmethod
    def by(cls, angles: Tensor) -> "Rotation":
        """Build from angles (B|1, L, D/2) in rad."""
        return cls(torch.complex(angles.cos().float(), angles.sin().float()))


def rotate(x: Tensor, rotation: Rotation | None) -> Tensor:
    """Turn pairs of dimensions.

    Args:
        x: (B, L, D) float32.
        rotation: By how much; None leaves ``x`` alone.

    Returns:
        (B, L, D) float32, each pair with the norm it had.
    """
    if rotation is None:
        return x
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (B, L, D/2)
    return torch.view_as_real(pairs * rotation.factor).flatten(-2)  # (B, L, D)


@dataclass(frozen=True)
class RotaryBranch:
    """One way to place queries and keys, and the signed distances (key minus query) at which it holds.

    Most strategies have one branch that holds everywhere. One that treats near and far keys differently (ReRoPE) has
    several, whose distances do not overlap.

    Attributes:
        query: Rotation of the queries.
        key: Rotation of the keys.
        min_distance: Smallest distance at which the branch holds.
        max_distance: Largest distance at which it holds.
    """

    query: Rotation | None = None
    key: Rotation | None = None
    min_distance: float = -math.inf
    max_distance: float = math.inf

    def holds_at(self, distance: Tensor) -> Tensor:
        """Say at which signed distances (…) the branch holds: bool (…)."""
        return (distance >= self.min_distance) & (distance <= self.max_distance)


class Position(Strategy):
    """Where a query and a key stand, brought into their score by rotation, gain or bias."""

    biased: bool = False
    """Whether ``bias`` has anything to add."""

    gained: bool = False
    """Whether ``gain`` differs from 1."""

    remaps_far_keys: bool = False
    """Whether far keys get other distances than their own."""

    samples_positions: bool = False
    """Whether training rows get position ids from ``sample_position_ids``."""

    def evaluated(self) -> "Position":
        """Return the strategy that stands in for this one outside training."""
        return self

    def sample_position_ids(self, sample_ids: list[int], epoch: int, length: int) -> Tensor:
        """Draw the position ids of training rows. Called only if ``samples_positions``.

        Args:
            sample_ids: Number of each row in the corpus (B entries).
            epoch: Passes over the corpus done before this one.
            length: Tokens per row.

        Returns:
            (B, L) int64, a pure function of the arguments and the strategy's seed.
        """
        raise NotImplementedError

    def branches(self, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Place queries and keys.

        Args:
            layout: Positions, padding and documents of the batch.
            key_size: D.

        Returns:
            The branches; together they hold at every distance. Without rotation: one that leaves everything in place.
        """
        return (RotaryBranch(),)

    def bias(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute what is added to a score.

        Args:
            distance: (B|1, …) int64, the key's position minus the query's.
            farthest: No distance is larger on either side; None where the host does not know.

        Returns:
            (B|1, …) float32, in nats before the temperature. Called only if ``biased``.
        """
        raise NotImplementedError

    def gain(self, distance: Tensor, farthest: int | None = None) -> Tensor:
        """Compute what a similarity is multiplied by.

        Args:
            distance: (B|1, …) int64, the key's position minus the query's.
            farthest: As for ``bias``.

        Returns:
            (B|1, …) float32. Called only if ``gained``.
        """
        raise NotImplementedError


class Rotary(Position):
    """Rotates a query and a key by angles that grow with their positions, so that scores depend on the distance."""

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute the angles at given positions.

        Args:
            positions: (B|1, L), the positions to rotate to, integer or not.
            layout: The batch's rows, for strategies whose angles depend on a document's length.
            key_size: D.

        Returns:
            (B|1, L, D/2) in rad, of the dtype of ``exact_dtype``.
        """
        raise NotImplementedError

    def branches(self, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Rotate queries and keys by the angles at their own positions."""
        rotation = Rotation.by(self.angles(layout.position_ids, layout, key_size))
        return (RotaryBranch(rotation, rotation),)


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


def frequencies(base: float, key_size: int, device: torch.device) -> Tensor:
    """Compute RoPE's frequencies.

    Args:
        base: As in ``RoPE``.
        key_size: D, even.
        device: Where to put them.

    Returns:
        (D/2,) in rad per token, of the dtype of ``exact_dtype``.
    """
    pair = torch.arange(key_size // 2, device=device, dtype=exact_dtype(device))
    return base ** (-2 * pair / key_size)


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return float64 where the device has it.

    In float32 the angle at position 131,071 is off by 0.007 rad: a frequency's rounding grows with the position.
    Apple's GPUs have no float64 and have to live with that.
    """
    return torch.float32 if device.type == "mps" else torch.float64
