"""The result on screen, in Markdown and in LaTeX."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report.cells import json_text, number, with_interval
from gau_alpha.extrapolation.report.groups import Summary, summaries
from gau_alpha.extrapolation.report.latex import booktabs
from gau_alpha.extrapolation.report.results import DAGGER, Results
from gau_alpha.untrusted.escaping import for_latex, for_markdown, one_line

EXPLANATION = (
    "Loss in nats per target. Brackets hold the 95 % interval over documents (bootstrap), written as far as 1,000 "
    "resamples carry its ends; differences are paired by document. Entropy in nats, mean over layers and queries. "
    "Near: share of attention on keys within half of the training length on either side. Sink: what SinkSoftmax gives "
    "to no key. Exact: 95 % interval of "
    "the loss that all positions would have given."
)
"""What stands below a table."""

DETAILS = [
    "method", "length", "distance", "status", "gain", "loss", "perplexity", "accuracy", "entropy", "entropy at 1×",
    "effective keys", "near", "sink", "gain difference", "loss difference", "to", "exact", "targets", "documents",
    "too short", "repeated", "seconds", "tokens/s", "peak MB", "note",
]  # fmt: skip
"""Columns of the table that shows every row in full; those without an entry are left out."""

_LARGEST = 700.0  # exp of it is a float
_TEXTS = ("method", "to", "note")  # those of them that hold what others wrote


def screen(report: Results) -> Table:
    """Perplexity or gain, then mean and spread where there are several checkpoints, then accuracy: lengths across."""
    # Text: in a str, rich would obey what stands in square brackets or between colons.
    lines = [report.caption(), *report.footnotes()]
    caption = Text("\n".join(map(one_line, lines)), "table.caption")
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False)
    table.add_column(report.measure, no_wrap=True, overflow="fold")
    for length in report.lengths:
        table.add_column(report.heading(length).replace(" ", "\n"), justify="right")
    for method in report.methods:
        cells = (report.cell(method, length) for length in report.lengths)
        table.add_row(Text(one_line(report.marked(method))), *(cell.replace("documents", "docs") for cell in cells))
    if groups := overview_of_groups(report):
        table.add_section()
        table.add_row("[bold]mean, range[/bold]")
        for name, *numbers in groups:
            table.add_row(Text(one_line(name)), *(Text(cell.replace(" [", "\n[")) for cell in numbers))
    if report.measure == "accuracy":
        return table
    table.add_section()
    table.add_row("[bold]accuracy[/bold]")
    for method in report.methods:
        table.add_row(
            Text(one_line(report.marked(method))), *(report.accuracy(method, length) for length in report.lengths)
        )
    return table


def markdown(tables: Sequence[Results], run: dict[str, Any]) -> str:
    """By protocol: a table by method and length, and every row in full; then the run.

    Args:
        tables: The results of each protocol.
        run: What they were measured with.
    """
    parts = ["# Extrapolation", "![Perplexity against length](extrapolation.png)"]
    for table in tables:
        by = "distance (tokens)" if table.is_probe else "length (tokens)"
        parts += [
            f"{table.measure.capitalize()} by {by}. {for_markdown(table.caption())}",
            _markdown_table(_first_escaped(overview(table))),
            *(for_markdown(line) for line in table.footnotes()),
        ]
        if lines := overview_of_groups(table):
            heading = ["mean over checkpoints [range]", *map(table.heading, table.lengths)]
            parts += ["## Several checkpoints", _markdown_table([heading, *_first_escaped(lines)])]
    parts += ["## All rows", EXPLANATION]
    for table in tables:
        heading, lines = details(table)
        escaped = [
            [for_markdown(cell) if name in _TEXTS else cell for name, cell in zip(heading, line, strict=True)]
            for line in lines
        ]
        parts.append(_markdown_table([heading, *escaped]))
    # No line of JSON begins with what would end the block.
    parts += ["## Run", f"```json\n{json_text(run)}\n```"]
    return "\n\n".join(parts) + "\n"


def latex(report: Results) -> str:
    """A LaTeX table for the package booktabs: a line per method, then means where checkpoints differ in their seed.

    The best of a length is set bold, and what does not differ from it significantly; a dagger marks methods that are
    flagged, and lines below say why.
    """
    methods = []
    for method in report.methods:
        cells = []
        for length in report.lengths:
            cell, row = for_latex(report.cell(method, length)), report.row(method, length)
            is_bold = row is not None and (report.is_best(row) or report.is_as_good(row))
            cells.append(rf"\textbf{{{cell}}}" if is_bold else cell)
        methods.append([for_latex(method) + (r"$^\dagger$" if method in report.flags else ""), *cells])
    groups = [
        [for_latex(name).replace(DAGGER, r"$^\dagger$"), *map(for_latex, cells)]
        for name, *cells in _lines_of_groups(report, _mean_and_interval)
    ]
    notes = [rf"$^\dagger$ {for_latex(note.removeprefix(f'{DAGGER} '))}" for note in report.footnotes()]
    if groups:
        notes.append("Means over checkpoints: the exponential of the mean loss, with its 95\\% interval over seeds.")
    return booktabs(
        heading=["method", *(for_latex(report.heading(length)) for length in report.lengths)],
        blocks=[block for block in (methods, groups) if block],
        caption=f"{report.measure.capitalize()} by length in tokens. {for_latex(report.caption())}",
        label="tab:extrapolation-copy" if report.is_probe else "tab:extrapolation",
        notes=notes,
    )


def overview(report: Results) -> list[list[str]]:
    """Perplexities or gains: a heading, then a line per method."""
    lines = [["method", *map(report.heading, report.lengths)]]
    return lines + [
        [report.marked(method), *(report.cell(method, length) for length in report.lengths)]
        for method in report.methods
    ]


def overview_of_groups(report: Results) -> list[list[str]]:
    """Mean perplexity and range over checkpoints: a line per group; no line where there is no group."""
    return _lines_of_groups(report, _mean_and_range)


def _lines_of_groups(report: Results, written: Callable[[Summary], str]) -> list[list[str]]:
    found: dict[str, dict[int, Summary]] = {}
    for one in summaries(report):
        found.setdefault(one.group, {})[one.length] = one
    lines = []
    for group, by_length in found.items():
        count = max(one.num_checkpoints for one in by_length.values())
        cells = [written(by_length[length]) if length in by_length else "" for length in report.lengths]
        lines.append([f"{report.marked(group)}, {count} checkpoints", *cells])
    return lines


def _mean_and_range(one: Summary) -> str:
    return f"{number(one.perplexity)} [{number(one.low)}–{number(one.high)}]"


def _mean_and_interval(one: Summary) -> str:
    low, high = (number(math.exp(min(end, _LARGEST))) for end in one.interval)
    return f"{number(one.perplexity)} [{low}, {high}]"


def details(report: Results) -> tuple[list[str], list[list[str]]]:
    """Everything about all rows.

    Args:
        report: The results.

    Returns:
        Those of ``DETAILS`` for which a row has an entry, and a line of cells per row.
    """
    lines = [_details(report, row) for row in report.rows]
    kept = [place for place in range(len(DETAILS)) if any(line[place] for line in lines)]
    return [DETAILS[place] for place in kept], [[line[place] for place in kept] for line in lines]


def _details(report: Results, row: ExtrapolationResult) -> list[str]:
    """A cell for each of ``DETAILS``."""
    at_once = report.row(row.method, min(report.lengths))
    entropy_at_once = at_once.attention_entropy if at_once is not None and at_once.length_ratio == 1 else None
    exact = ""
    if row.loss_sampling_low is not None and row.loss_sampling_high is not None:
        exact = f"[{row.loss_sampling_low:.4f}, {row.loss_sampling_high:.4f}]"
    return [
        row.method,
        f"{row.length:,} ({row.length_ratio}×)",
        _written(row.distance, "{:,}"),
        row.status.value,
        with_interval(row.gain, row.gain_low, row.gain_high, "{:+.{}f}".format, 4),
        with_interval(row.loss, row.loss_low, row.loss_high, "{:.{}f}".format, 4),
        with_interval(row.perplexity, row.perplexity_low, row.perplexity_high, number, 2),
        with_interval(row.accuracy, row.accuracy_low, row.accuracy_high, percent, 4),
        _written(row.attention_entropy, "{:.3f}"),
        _written(entropy_at_once, "{:.3f}"),
        _written(row.effective_keys, "{:.1f}"),
        _written(row.near_share, "{:.1%}"),
        _written(row.sink_share, "{:.1%}"),
        with_interval(row.gain_difference, row.gain_difference_low, row.gain_difference_high, "{:+.{}f}".format, 4),
        with_interval(row.loss_difference, row.loss_difference_low, row.loss_difference_high, "{:+.{}f}".format, 4),
        row.baseline,
        exact,
        f"{row.num_targets:,}" + (f" of {row.num_positions:,}" if row.num_positions > row.num_targets else ""),
        f"{row.num_documents:,}",
        f"{row.num_short_documents:,}",
        f"{row.num_repeated_documents:,}",
        _written(row.seconds, "{:.2f}"),
        _written(row.tokens_per_second, "{:,.0f}"),
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:,.0f}",
        row.note,
    ]


def difference(report: Results, row: ExtrapolationResult) -> str:
    """The paired difference to the baseline with its interval, for a cell.

    Args:
        report: The results.
        row: One of its rows.
    """
    if row.status is not Status.OK:
        return row.status.value
    value, low, high = report.difference(row)
    return with_interval(value, low, high, "{:+.{}f}".format, 3)


def percent(value: float, decimals: int) -> str:
    """Write a share in percent.

    Args:
        value: The share.
        decimals: Of the share: two fewer of the percentage.
    """
    return f"{value:.{max(0, decimals - 2)}%}"


def _written(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _markdown_table(cells: list[list[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    rule = "|" + "|".join(["---"] + ["---:"] * (len(cells[0]) - 1)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _first_escaped(lines: list[list[str]]) -> list[list[str]]:
    return [[for_markdown(name), *numbers] for name, *numbers in lines]
