"""Which methods scale alike: temperatures are few curves under many names."""

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.scaling import InfoScale, NoScaling

NEAR = 0.03
"""Temperatures that differ by no more, relative to each other, are taken for the same."""

RATIOS = (1, 2, 4, 8, 16, 32, 64)
"""Lengths at which they are compared, as multiples of train_length."""


class Likeness(NamedTuple):
    """The method that another one hardly differs from.

    Attributes:
        method: Its name.
        difference: Of the temperatures, relative, the largest of all lengths.
    """

    method: str
    difference: float

    def __str__(self) -> str:
        """Say it in words."""
        return f"differs from {self.method} by at most {math.ceil(100 * self.difference)} %"


def likenesses(methods: Mapping[str, AttentionMethod], train_length: int, key_size: int) -> dict[str, Likeness]:
    """Find methods whose temperatures agree within 3 % at all lengths, and that agree on all other axes.

    Scalings that are learned or measured are left out: nobody knows them beforehand.

    Args:
        methods: By name, for ``train_length``.
        train_length: Tokens per training row.
        key_size: d.

    Returns:
        For each such method the one that it is like: one with InfoScale first of all, then the first by name.
    """
    lengths = torch.tensor([ratio * train_length for ratio in RATIOS])  # (lengths,)
    groups: dict[str, list[tuple[str, Tensor]]] = {}
    found: dict[str, Likeness] = {}
    for name in sorted(methods, key=lambda name: (not isinstance(methods[name].scaling, InfoScale), name)):
        method = methods[name]
        temperatures = _temperatures(method, lengths, key_size)
        if temperatures is None:
            continue
        others = json.dumps(method.replace(scaling=NoScaling()).describe(), sort_keys=True)
        group = groups.setdefault(others, [])
        differences = [(one, _difference(temperatures, its)) for one, its in group]
        if near := [Likeness(one, difference) for one, difference in differences if difference <= NEAR]:
            found[name] = min(near, key=lambda one: one.difference)
        else:
            group.append((name, temperatures))
    return found


def _temperatures(method: AttentionMethod, lengths: Tensor, key_size: int) -> Tensor | None:
    """(lengths,) τ where every key is seen; None if it has to be learned, or measured first."""
    if not method.scaling.training_free or method.turns is not None:
        return None
    try:
        return method.scaling.temperature(lengths, key_size).double()
    except ValueError:  # it says that it has no table yet
        return None


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one / other - 1).abs().max())
