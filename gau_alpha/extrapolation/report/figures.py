"""Plots: perplexity against length, and where attention goes.

All is drawn under matplotlib's own defaults: a ``matplotlibrc`` that happens to lie in the working directory could ask
for other fonts, or for a LaTeX preamble of its own.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from gau_alpha.extrapolation import ExtrapolationResult
from gau_alpha.extrapolation.report.results import Results
from gau_alpha.extrapolation.report.series import Look, families, spread, styles
from gau_alpha.untrusted.escaping import one_line

_DPI = 120
_PANELS_ACROSS = 3
_LONGEST = 80  # characters of a name
_FEW = 8  # methods whose bands can be told apart
_NAME_SIZE = 8  # points, of names beside lines
_NAME_GAP = 1.25 * _NAME_SIZE / 72  # inches from one to the next
_LITERAL: dict[str, Any] = {"parse_math": False, "usetex": False}  # of text that others wrote: a $ in it is a $


@style.context("default")
def overview(tables: Sequence[Results], look: Look | None = None) -> Figure:
    """Perplexity against length, and gain against distance: a panel per table, a line per method, intervals as bands.

    The dashed line marks the training length. A method's line has a gap where it has no number; its name stands to the
    right.

    Args:
        tables: The results of each protocol.
        look: How methods are drawn; by default as ``look_of`` says.
    """
    look = look or look_of(tables)
    longest = max(len(_short(name)) for table in tables for name in _marked(table))
    height = max(5.0, 1.2 + _NAME_GAP * len(look))
    figure = _figure((6.5 + 0.07 * longest) * len(tables), height)
    panels = _panels(figure, tables, look)
    for axes, lines, table in zip(figure.axes, panels, tables, strict=True):
        _names_beside(axes, lines, table, height - 1)
    return figure


@style.context("default")
def thumbnail(tables: Sequence[Results]) -> Figure:
    """The same, to be read at 300 pixels: loggers show images that small.

    Args:
        tables: The results of each protocol.
    """
    figure = _figure(4.5 * len(tables), 3.1 + 0.2 * (len(tables[0].methods) // 2))
    panels = _panels(figure, tables, look_of(tables))
    for axes, table in zip(figure.axes, tables, strict=True):
        axes.set_ylabel(table.measure)
        if len(table.lengths) > 5:
            axes.tick_params(axis="x", labelrotation=45)
    lines = {
        table.marked(name): line for table, panel in zip(tables, panels, strict=True) for name, line in panel.items()
    }
    _legend(figure, list(lines.values()), list(lines), loc="outside lower center", ncols=2)
    return figure


def look_of(tables: Sequence[Results]) -> Look:
    """How each method is drawn, family by family.

    Args:
        tables: The results of each protocol.
    """
    methods = list(dict.fromkeys(method for table in tables for method in table.methods))
    return styles(families(methods, tables[0].run.get("methods")))


def _panels(figure: Figure, tables: Sequence[Results], look: Look) -> list[dict[str, Line2D]]:
    """Draw what each table is about; lines by their method."""
    panels = []
    for axes, table in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables, strict=True):
        panels.append({method: _draw(axes, table, method, look[method]) for method in look if method in table.methods})
        (_gains_up if table.is_probe else _perplexities_up)(axes, table)
        _lengths_across(axes, table)
    return panels


def _names_beside(axes: Axes, lines: Mapping[str, Line2D], report: Results, height: float) -> None:
    """Write each method's name to the right of its line; ``height`` is that of the axes in inches."""
    to_share = axes.transScale + axes.transLimits
    ends = []
    for line in lines.values():
        points = np.array(line.get_xydata(), np.float64)  # (L, 2)
        drawn = points[np.isfinite(points[:, 1])]
        ends.append(tuple(to_share.transform(drawn[-1])) if len(drawn) else (1.0, 0.0))
    heights = spread([y for _, y in ends], _NAME_GAP / height)
    for (method, line), (x, y), at in zip(lines.items(), ends, heights, strict=True):
        alike: dict[str, Any] = {
            "color": line.get_color(),
            "transform": axes.transAxes,
            "gid": line.get_gid(),
            "clip_on": False,
        }
        axes.add_line(Line2D([x, 1.02], [y, at], linewidth=0.6, alpha=0.6, **alike))
        axes.text(1.03, at, _short(report.marked(method)), va="center", fontsize=_NAME_SIZE, **alike, **_LITERAL)


def _draw(axes: Axes, report: Results, method: str, style: dict[str, Any]) -> Line2D:
    rows = [report.row(method, length) for length in report.lengths]
    across = list(map(report.distance, report.lengths))
    low, high = _values(rows, f"{report.measure}_low"), _values(rows, f"{report.measure}_high")
    if len(report.methods) <= _FEW:
        axes.fill_between(across, low, high, alpha=0.15, linewidth=0, color=style["color"], gid=style["gid"])
    (line,) = axes.plot(across, _values(rows, report.measure), label=method, **style)
    return line


def _perplexities_up(axes: Axes, report: Results) -> None:
    axes.set_yscale("log")
    if not any(row.perplexity is not None and math.isfinite(row.perplexity) for row in report.rows):
        axes.set_ylim(1, 10)  # nothing to draw, and a log axis has no limits of its own
    bottom, top = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top > 5 * bottom else range(1, 10)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"perplexity at masked tokens ({_short(report.rows[0].protocol)})", **_LITERAL)


def _gains_up(axes: Axes, report: Results) -> None:
    axes.axhline(0, color="0.4", linewidth=1, zorder=0)
    if report.measure == "gain":
        axes.set_ylabel("gain from the passage (nats per masked token)")
    else:
        axes.set_ylabel("accuracy at the values of questions")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


@style.context("default")
def attention(report: Results, look: Look | None = None) -> Figure | None:
    """Entropy, share of attention that stays near, and attention by distance at the longest length; None if unknown.

    An even spread over all keys would have the entropy ln n, the dotted line.

    Args:
        report: The results of a protocol.
        look: How methods are drawn; by default as ``look_of`` says.
    """
    if all(row.attention_entropy is None for row in report.rows):
        return None
    with_distances = any(row.near_share is not None for row in report.rows)
    figure = _figure(13 if with_distances else 9, 4.4)
    panels = figure.subplots(1, 3 if with_distances else 1, squeeze=False)[0]
    lengths = report.lengths
    look = look or look_of([report])
    lines = panels[0].plot(lengths, np.log(lengths), color="0.5", linestyle=":", label="even spread, ln n")
    panels[0].set_ylabel("attention entropy (nats)")
    for method in report.methods:
        rows = [report.row(method, length) for length in lengths]
        lines += panels[0].plot(lengths, _values(rows, "attention_entropy"), label=method, **look[method])
        if with_distances:
            panels[1].plot(lengths, _values(rows, "near_share"), **look[method])
    _lengths_across(panels[0], report)
    panels[0].tick_params(axis="x", labelrotation=45)
    if with_distances:
        _lengths_across(panels[1], report)
        panels[1].tick_params(axis="x", labelrotation=45)
        panels[1].set_ylabel("attention within ± half of the training length")
        panels[1].yaxis.set_major_formatter(PercentFormatter(1.0))
        _by_distance(panels[2], report, look)
    names = ["even spread, ln n", *_marked(report)]
    if with_distances:
        _legend(figure, lines, names, loc="outside lower center", fontsize=9, ncols=4)
    else:
        _legend(figure, lines, names, loc="outside right upper", fontsize=9)
    return figure


@style.context("default")
def layers(report: Results) -> Figure | None:
    """Entropy of every layer against length, a panel per method; None if entropy was not measured."""
    measured = [
        method
        for method in report.methods
        if any(row.method == method and row.layers is not None for row in report.rows)
    ]
    if not measured:
        return None
    across = min(_PANELS_ACROSS, len(measured))
    down = -(-len(measured) // across)
    figure = _figure(4.2 * across + 1, 3.2 * down)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flatten()
    colours = matplotlib.colormaps["viridis"]
    for axes, method in zip(panels, measured, strict=False):
        rows = [row for row in report.rows if row.method == method and row.layers is not None]
        entropies = np.array(
            [row.layers["attention_entropy"] for row in rows if row.layers is not None], np.float64
        )  # (R, K)
        for layer, values in enumerate(entropies.T):
            share = layer / max(1, entropies.shape[1] - 1)
            axes.plot([row.length for row in rows], values, color=colours(0.9 * share), marker=".", label=f"{layer}")
        axes.set_title(_short(report.marked(method)), fontsize=9, **_LITERAL)
        _lengths_across(axes, report)
        axes.tick_params(axis="x", labelrotation=45, labelsize=7, labelbottom=True)
    for axes in panels[: len(measured) - across]:  # another panel stands below
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)
    for axes in panels[len(measured) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, title="layer", loc="outside right upper", frameon=False, fontsize=8)
    figure.supylabel("attention entropy (nats)", fontsize=10)
    return figure


@style.context("default")
def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


@style.context("default")
def image(figure: Figure) -> np.ndarray:
    """A figure as (height, width, 3) uint8, for loggers of images."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@style.context("default")
def svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element that can stand in a page beside others.

    Args:
        figure: The figure.
        name: Makes its internal names differ from those of other figures of the page.
    """
    content = io.StringIO()
    # Text stays text: smaller, and it can be searched. A fixed salt makes equal figures equal files.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    text = content.getvalue()
    # One element has an id, but several draw a method, in several figures of a page.
    return re.sub(r'id="(series\d+)"', r'class="\1"', text[text.index("<svg") :])


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _legend(figure: Figure, lines: Sequence[Line2D], names: Sequence[str], **where: Any) -> None:
    # Names are set afterwards: as labels, matplotlib would leave out those that begin with an underscore.
    legend = figure.legend(lines, ["-"] * len(lines), frameon=False, **where)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=_short(name), **_LITERAL)


def _marked(report: Results) -> list[str]:
    """Names of methods as tables have them: with a dagger where something speaks against a method."""
    return [report.marked(method) for method in report.methods]


def _short(name: str) -> str:
    """What there is room for; names that share their beginning, as those of runs do, differ at the end."""
    text = one_line(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[1 - _LONGEST // 2 :]}"


def _lengths_across(axes: Axes, report: Results) -> None:
    across = list(map(report.distance, report.lengths))
    left, right = across[0] / 1.25, across[-1] * 1.25
    for train_length in sorted({row.length // row.length_ratio for row in report.rows}):
        if not left <= train_length <= right:
            continue
        axes.axvline(train_length, color="0.4", linestyle="--", linewidth=1, zorder=0)
        axes.annotate(
            f"trained at {train_length}", (train_length, 1), xycoords=("data", "axes fraction"),
            xytext=(3, -4), textcoords="offset points", rotation=90, va="top", color="0.4", fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(across, [f"{length:,}" for length in across])
    axes.set_xticks([], minor=True)
    axes.set_xlim(left, right)
    axes.grid(alpha=0.25)
    axes.set_xlabel("distance (tokens)" if report.is_probe else "evaluated length (tokens)")


def _by_distance(axes: Axes, report: Results, look: Look) -> None:
    """Share of attention by distance, at the longest length that was measured for each method."""
    longest = 0
    for method in report.methods:
        rows = [row for row in report.rows if row.method == method and row.layers and "distance_share" in row.layers]
        if not rows or rows[-1].layers is None:
            continue
        row = max(rows, key=lambda row: row.length)
        assert row.layers is not None
        longest = max(longest, row.length)
        starts = np.array(row.layers["distance_from"])
        shares = np.array(row.layers["distance_share"], np.float64).mean(0)
        axes.plot(np.maximum(starts, 0.5), shares, **look[method])  # a logarithmic axis has no 0
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: "0" if value < 1 else f"{value:,.0f}")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(f"distance of the key: from so many tokens\nto twice as many, at {longest:,} tokens")
    axes.set_ylabel("share of attention")
    axes.grid(alpha=0.25)


def _values(rows: Sequence[ExtrapolationResult | None], name: str) -> np.ndarray:
    """(L,) float64, NaN where there is no number: a gap in the plot."""
    values = [None if row is None else getattr(row, name) for row in rows]
    return np.array([math.nan if value is None or math.isinf(value) else value for value in values])
