"""What the scores know of where query and key stand: the axis ``position``.

A strategy rotates queries and keys (``branches``), multiplies similarities (``gain``), adds to the scores (``bias``),
or does none of it. To add one: subclass ``Rotary`` and give ``angles``, or subclass ``Position`` and give ``bias``.
``tests/gau_alpha/attention/test_strategies.py`` finds the class by itself.
"""

from gau_alpha.position.base import (
    NoPosition,
    Position,
    RoPE,
    Rotary,
    RotaryBranch,
    Rotation,
    exact_dtype,
    frequencies,
    rotate,
)
from gau_alpha.position.bias import ALiBi, KerpleLog, Sandwich
from gau_alpha.position.extension import DynamicNTK, NTKAware, PositionInterpolation, YaRN
from gau_alpha.position.rerope import LeakyReRoPE, ReRoPE, SelfExtend
from gau_alpha.position.rope import PartialRoPE, StretchedPositions
from gau_alpha.position.sampled_positions import PoSE, RandomizedPositions
from gau_alpha.position.scale_invariant import ScaleInvariant

__all__ = [
    "ALiBi",
    "DynamicNTK",
    "KerpleLog",
    "LeakyReRoPE",
    "NTKAware",
    "NoPosition",
    "PartialRoPE",
    "PoSE",
    "Position",
    "PositionInterpolation",
    "RandomizedPositions",
    "ReRoPE",
    "RoPE",
    "Rotary",
    "RotaryBranch",
    "Rotation",
    "Sandwich",
    "ScaleInvariant",
    "SelfExtend",
    "StretchedPositions",
    "YaRN",
    "exact_dtype",
    "frequencies",
    "rotate",
]
