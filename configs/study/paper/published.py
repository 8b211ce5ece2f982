"""Positions as the code published with arXiv 2501.08570 computed them, faults included: to see what these change."""

from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.position import PositionInterpolation, ReRoPE, RoPE, RotaryBranch


class PublishedPI(PositionInterpolation):
    """Position interpolation that multiplies positions by the factor, where the paper divides by it."""

    def angles(self, positions: Tensor, layout: SequenceLayout, key_size: int) -> Tensor:
        """Compute the angles of positions that are farther out than without interpolation."""
        return RoPE.angles(self, positions * self.extension(layout)[..., 0], layout, key_size)


class PublishedReRoPE(ReRoPE):
    """ReRoPE that rotates keys far to the right as it does those far to the left."""

    def branches(self, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Give the right-hand branch the rotations of the left-hand one."""
        near, *far = super().branches(layout, key_size)
        if not far:
            return (near,)
        left, right = far
        return near, left, RotaryBranch(left.query, left.key, min_distance=right.min_distance)
