"""``gau-alpha methods``: the presets, what they are, and what they choose on each axis."""

import argparse
import json
import textwrap
from typing import Any, NamedTuple

from gau_alpha.attention.method import AXES, AttentionMethod
from gau_alpha.attention.presets import display_name, explanation, load_preset, preset_names, resolve_method
from gau_alpha.cli.temperatures import RATIOS, Likeness, likenesses
from gau_alpha.untrusted.escaping import one_line
from gau_alpha.untrusted.limits import require_whole

AS_TRAINED = "as trained"
"""What the table shows for an axis that a preset leaves open."""

WIDTH = 120
"""Columns of the table, unless ``--wide`` is asked for."""

MARK = " ≈"
"""Behind the name of a method that is explained below the table."""


class _Listed(NamedTuple):
    """A preset, or a method file of the user's own.

    Attributes:
        name: As tables name it.
        needs: ``training-free`` or ``trained``.
        explanation: One sentence; of a file of the user's own, what it chooses.
        strategies: What it chooses, by axis, and ``turns``.
        like: The method that it hardly differs from.
    """

    name: str
    needs: str
    explanation: str
    strategies: dict[str, Any]
    like: Likeness | None

    @property
    def papers(self) -> str:
        """Where its strategies were published."""
        return ", ".join(dict.fromkeys(one.paper for one in self.strategies.values() if one.paper))


def print_methods(args: list[str]) -> int:
    """Print a line per preset, for people and for grep.

    Args:
        args: Method files of the user's own, if any, and options.

    Returns:
        The exit code.

    Raises:
        ValueError: If a file is no method, or a number out of range.
    """
    parser = argparse.ArgumentParser(
        prog="gau-alpha methods",
        description=f"List the attention methods, a line each. {AS_TRAINED!r}: the checkpoint's own choice is kept.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE.yaml", help="method files of your own, listed with the rest")
    parser.add_argument("--wide", action="store_true", help="show what is chosen on each axis; lines get long")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument(
        "--train_length", type=int, default=64, help="compare temperatures at multiples of it (%(default)s)"
    )
    parser.add_argument("--key_size", type=int, default=128, help="and for queries of this width (%(default)s)")
    options = parser.parse_args(args)
    require_whole("train_length", options.train_length, least=2, most=2**24)
    require_whole("key_size", options.key_size, least=2, most=2**24)
    listed = _listed([*preset_names(), *options.files], options.train_length, options.key_size)
    if options.json:
        print(json.dumps(_plain(listed, options.train_length, options.key_size), indent=1))
        return 0
    print("\n".join(_wide(listed) if options.wide else _narrow(listed)))
    if notes := [f"  {one.name} {one.like}" for one in listed if one.like]:
        print(
            f"\n≈ has nearly the temperatures of another method with the same other axes, at train_length "
            f"{options.train_length:,} and\nup to {RATIOS[-1]} times that length, key size {options.key_size}:"
        )
        print("\n".join(map(one_line, notes)))
    return 0


def _listed(names: list[str], train_length: int, key_size: int) -> list[_Listed]:
    methods = {display_name(name): resolve_method(name, AttentionMethod(), train_length) for name in names}
    like = likenesses(methods, train_length, key_size)
    listed = []
    for name in names:
        strategies = load_preset(name)
        needs = "training-free" if all(one.training_free for one in strategies.values()) else "trained"
        shown = display_name(name)
        said = explanation(name) if name in preset_names() else " · ".join(map(repr, strategies.values()))
        listed.append(_Listed(shown, needs, said, strategies, like.get(shown)))
    return listed


def _narrow(listed: list[_Listed]) -> list[str]:
    cells = [["method", "needs", "what it is"]]
    cells += [[one.name + MARK * bool(one.like), one.needs, one.explanation] for one in listed]
    left = WIDTH - sum(max(len(line[column]) for line in cells) + 2 for column in (0, 1))
    return _aligned([[*line[:2], textwrap.shorten(line[2], max(left, 20), placeholder="…")] for line in cells])


def _wide(listed: list[_Listed]) -> list[str]:
    columns = (*AXES, "turns")
    cells = [["method", "needs", *columns, "paper"]]
    for one in listed:
        chosen = [repr(one.strategies[axis]) if axis in one.strategies else AS_TRAINED for axis in columns]
        cells.append([one.name + MARK * bool(one.like), one.needs, *chosen, one.papers])
    return _aligned(cells)


def _aligned(lines: list[list[str]]) -> list[str]:
    cells = [[one_line(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _plain(listed: list[_Listed], train_length: int, key_size: int) -> dict[str, Any]:
    """Plain data: the methods, and at which sizes temperatures were compared."""
    methods = []
    for one in listed:
        axes = {axis: one.strategies[axis].describe() for axis in AXES if axis in one.strategies}
        turns = one.strategies["turns"].describe() if "turns" in one.strategies else {}
        like = None if one.like is None else one.like._asdict()
        about = {"method": one.name, "needs": one.needs, "explanation": one.explanation, "paper": one.papers}
        methods.append({**about, **dict.fromkeys(AXES), **axes, **turns, "like": like})
    return {"train_length": train_length, "key_size": key_size, "methods": methods}
