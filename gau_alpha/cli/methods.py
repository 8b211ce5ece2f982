"""``gau-alpha methods``: the presets and what they choose on each axis."""

import argparse

from gau_alpha.attention.method import AXES
from gau_alpha.attention.presets import display_name, load_preset, preset_names

AS_TRAINED = "as trained"
"""What the table shows for an axis that a preset leaves open."""


def print_methods(args: list[str]) -> int:
    """Print a line per preset, for people and for grep.

    Args:
        args: Method files of the user's own, if any.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(
        prog="gau-alpha methods",
        description=f"List the attention methods, a line each. {AS_TRAINED!r}: the checkpoint's own choice is kept.",
    )
    parser.add_argument("files", nargs="*", metavar="FILE.yaml", help="method files of your own, listed with the rest")
    own = parser.parse_args(args).files
    lines = [["method", "needs", *AXES, "paper"]]
    for name in [*preset_names(), *own]:
        strategies = load_preset(name)
        needs = "training-free" if all(one.training_free for one in strategies.values()) else "trained"
        papers = ", ".join(dict.fromkeys(one.paper for one in strategies.values() if one.paper))
        axes = (repr(strategies[axis]) if axis in strategies else AS_TRAINED for axis in AXES)
        lines.append([display_name(name), needs, *axes, papers])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0
