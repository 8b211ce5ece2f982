"""``gau-alpha methods``: the presets and what they choose on each axis."""

import argparse

from rich.console import Console
from rich.table import Table

from gau_alpha.method import AXES
from gau_alpha.presets import load_preset, preset_names


def print_methods(args: list[str]) -> int:
    """Print a line per preset.

    Args:
        args: Options; there are none but ``--help``.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="gau-alpha methods", description="List the attention methods, a line each.")
    parser.parse_args(args)
    # A line each, however narrow the terminal; cut the columns or pipe through `less -S` if it wraps.
    table = Table(box=None, pad_edge=False)
    table.add_column("method", style="bold", no_wrap=True)
    for axis in AXES:
        table.add_column(axis)
    for name in preset_names():
        strategies = load_preset(name)
        table.add_row(name, *(repr(strategies[axis]) if axis in strategies else "as trained" for axis in AXES))
    Console().print(table)
    return 0
