"""Which methods belong together, and how each is drawn: a colour of its own, and its name beside its line.

Okabe & Ito's colours are told apart with any colour vision; where there are more methods than these, each family has a
part of the hues for itself.
"""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.colors import to_hex

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_LUMINANCES = (0.05, 0.13, 0.27)
"""Of one colour and the next: relative luminances, all dark enough for a name on white (a contrast of 3 to 1)."""

_FAMILIES = {
    "every": "layers in turns",
    "normalizer": "normalizers",
    "visibility": "fewer keys",
    "position": "positions",
    "similarity": "similarities",
    "scaling": "temperatures",
}
"""What a method is told by: the first of these in which it differs from the first method."""

_PLAIN = "as the first"

Look = dict[str, dict[str, Any]]
"""Arguments of matplotlib's ``plot`` by method."""


def families(methods: Sequence[str], descriptions: object) -> dict[str, list[str]]:
    """Group methods by the axis in which they differ from the first.

    Args:
        methods: Their names.
        descriptions: By name, what ``AttentionMethod.describe`` says of a method; as anyone may have written it.

    Returns:
        Names by family, the first method's first; all in one, without a name, where methods are not described.
    """
    known = descriptions if isinstance(descriptions, Mapping) else {}
    first = known.get(methods[0])
    if not isinstance(first, Mapping) or not all(isinstance(known.get(name), Mapping) for name in methods):
        return {"": list(methods)}
    found: dict[str, list[str]] = {}
    for name in methods:
        differing = (family for axis, family in _FAMILIES.items() if _kind(known[name], axis) != _kind(first, axis))
        found.setdefault(next(differing, _PLAIN), []).append(name)
    order = [_PLAIN, *reversed(_FAMILIES.values())]
    return {family: found[family] for family in order if family in found}


def _kind(description: Mapping[str, Any], axis: str) -> object:
    """The class of a strategy; its numbers tell no families apart."""
    strategy = description.get(axis)
    return strategy.get("class_path") if isinstance(strategy, Mapping) else strategy


def styles(grouped: Mapping[str, Sequence[str]]) -> Look:
    """Give every method a colour of its own, a marker, dashes, and the gid ``series0``, ``series1`` and so on.

    Args:
        grouped: Names by family.
    """
    names = [name for members in grouped.values() for name in members]
    if len(names) <= len(_COLOURS):
        colours = list(_COLOURS)
    else:
        share = 1 / len(grouped)  # of the hues; a fifth of it is left free between one family and the next
        colours = [
            _colour((place + 0.8 * number / max(1, len(members))) * share, _LUMINANCES[number % len(_LUMINANCES)])
            for place, members in enumerate(grouped.values())
            for number in range(len(members))
        ]
    return {
        name: {
            "color": colours[place],
            "linestyle": _DASHES[place // len(_COLOURS) % len(_DASHES)],
            "marker": _MARKERS[place % len(_MARKERS)],
            "markersize": 5,
            "gid": f"series{place}",
        }
        for place, name in enumerate(names)
    }


def _colour(hue: float, luminance: float) -> str:
    """Mix a colour of a hue; at one lightness yellow is far brighter than blue, so it is found by its luminance."""
    low, high = 0.0, 1.0
    for _ in range(20):
        lightness = (low + high) / 2
        colour = colorsys.hls_to_rgb(hue % 1.0, lightness, 0.85)
        low, high = (lightness, high) if relative_luminance(colour) < luminance else (low, lightness)
    return to_hex(colour)


def relative_luminance(colour: tuple[float, float, float]) -> float:
    """How bright a colour is seen, from 0 (black) to 1 (white), as WCAG 2.2 defines it.

    Args:
        colour: Red, green and blue in sRGB, from 0 to 1.
    """
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights as little as need be, in squares, so that each is a gap away from the next.

    What is too close makes a pool, which moves together (the pool-adjacent-violators algorithm).

    Args:
        heights: Where names would best stand, from 0 to 1; they stay there if there is room for all.
        gap: Between one and the next.

    Returns:
        Where they stand, in the same order.
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    pools: list[tuple[float, int]] = []  # sum of what members ask of the pool's first, and how many they are
    for number, place in enumerate(order):
        total, count = heights[place] - number * gap, 1
        while pools and pools[-1][0] / pools[-1][1] >= total / count:
            total, count = total + pools[-1][0], count + pools[-1][1]
            pools.pop()
        pools.append((total, count))
    room = max(0.0, 1 - (len(heights) - 1) * gap)
    firsts = [min(max(total / count, 0.0), room) for total, count in pools for _ in range(count)]
    moved = [0.0] * len(heights)
    for number, (place, first) in enumerate(zip(order, firsts, strict=True)):
        moved[place] = first + number * gap
    return moved
