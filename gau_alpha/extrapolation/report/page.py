"""The report as one HTML page that needs no network and no other file."""

from collections.abc import Sequence
from html import escape
from typing import Any

from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import figures, tables
from gau_alpha.extrapolation.report.cells import ends, json_text, number
from gau_alpha.extrapolation.report.results import Results
from gau_alpha.untrusted.escaping import for_html

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.caption, .note { color: #555; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child, td:last-child.text { text-align: left; }
thead th { border-bottom: 2px solid #333; } tbody tr:nth-child(even) { background: #f6f6f6; }
small { display: block; color: #777; } .best { font-weight: 700; } .failed { color: #a33; }
.better { color: #00694c; } .worse { color: #b04a00; }
.wide { overflow-x: auto; } .wide table { font-size: 12px; }
svg { max-width: 100%; height: auto; } pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 12px; }
"""


def page(results: Sequence[Results], run: dict[str, Any]) -> str:
    """The whole page.

    Args:
        results: Those of each protocol.
        run: What they were measured with.
    """
    sections = [
        "<h1>Extrapolation</h1>",
        *(part for place, one in enumerate(results) for part in _sections(one, place)),
    ]
    sections += ["<h2>All rows</h2>", f"<p class='note'>{for_html(tables.EXPLANATION)}</p>"]
    for one in results:
        heading, lines = tables.details(one)
        cells = [[for_html(cell) for cell in line] for line in lines]
        sections.append(f"<div class='wide'>{_table(heading, cells)}</div>")
    sections.append(
        "<h2>Run</h2><details><summary>What was measured, with what</summary>"
        f"<pre>{escape(json_text(run))}</pre></details>"
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>Extrapolation</title>"
        "<meta name='viewport' content='width=device-width'>"
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _sections(report: Results, place: int) -> list[str]:
    """What there is to say of one protocol; ``place`` tells its figures from those of others."""
    sections = [
        f"<h2>{report.measure.capitalize()}</h2><p class='caption'>{for_html(report.caption())}</p>",
        _overview(report),
        f"<p class='note'>{_legend(report)}</p>",
        *(f"<p class='note'>{for_html(line)}</p>" for line in report.footnotes()),
        figures.svg(figures.overview([report]), f"overview{place}"),
    ]
    if lines := tables.overview_of_groups(report):
        heading = ["mean over checkpoints [range]", *map(report.heading, report.lengths)]
        sections += ["<h2>Several checkpoints</h2>", _table(heading, [list(map(for_html, line)) for line in lines])]
    if not report.is_probe:
        sections += ["<h2>Accuracy</h2>", _accuracies(report)]
    if any(row.baseline for row in report.rows):
        sections += _differences(report)
    for figure, heading_, drawn in (
        ("attention", "Where attention goes", figures.attention(report)),
        ("layers", "Entropy by layer", figures.layers(report)),
    ):
        if drawn is not None:
            sections += [f"<h2>{heading_}</h2>", figures.svg(drawn, f"{figure}{place}")]
    return sections


def _overview(report: Results) -> str:
    lines = []
    for method in report.methods:
        cells = [for_html(report.marked(method))]
        for length in report.lengths:
            row = report.row(method, length)
            if row is None:
                cells.append("")
            elif row.status is not Status.OK:
                cells.append(f"<span class='failed'>{for_html(row.status.value)}</span>")
            else:
                text = report.written(row)
                text = f"<span class='best'>{text}</span>" if report.is_best(row) else text
                cells.append(text + _interval(report, row))
        lines.append(cells)
    return _table(["method", *map(report.heading, report.lengths)], lines)


def _interval(report: Results, row: ExtrapolationResult) -> str:
    low, high = (getattr(row, f"{report.measure}_{end}") for end in ("low", "high"))
    if low is None or high is None:
        return ""
    written = {"gain": "{:+.{}f}".format, "accuracy": tables.percent}.get(report.measure, number)
    dash = " to " if report.measure == "gain" else "–"
    most = 4 if report.measure == "accuracy" else 2
    return f"<small>{dash.join(ends(low, high, written, most))}</small>"


def _legend(report: Results) -> str:
    best = "highest of its distance" if report.is_probe else "lowest of its length"
    if any(row.loss_low is not None for row in report.rows):
        return f"Small: 95 % interval over documents. Bold: {best}."
    return f"Bold: {best}. A single document gives no interval."


def _accuracies(report: Results) -> str:
    lines = [
        [for_html(report.marked(method)), *(report.accuracy(method, length) for length in report.lengths)]
        for method in report.methods
    ]
    return _table(["method", *map(report.heading, report.lengths)], lines)


def _differences(report: Results) -> list[str]:
    baseline = next(row.baseline for row in report.rows if row.baseline)
    lines = []
    for method in report.methods:
        cells = [for_html(report.marked(method))]
        for length in report.lengths:
            row = report.row(method, length)
            cells.append("" if row is None else _difference(report, row))
        if method != baseline:
            lines.append(cells)
    what = report.measure.capitalize() if report.is_probe else "Loss"
    return [
        f"<h2>{what} minus that of {for_html(baseline)}</h2>",
        _table(["method", *map(report.heading, report.lengths)], lines),
        "<p class='note'>Nats per target, paired by document, with the 95 % interval. Coloured where that excludes 0: "
        "green is better, orange worse.</p>",
    ]


def _difference(report: Results, row: ExtrapolationResult) -> str:
    text = for_html(tables.difference(report, row)).replace(" [", "<small>[").replace("]", "]</small>")
    _, low, high = report.difference(row)
    if low is None or high is None or low <= 0 <= high:
        return text
    kind = "better" if (low > 0) == report.is_probe else "worse"
    return f"<span class='{kind}'>{text}</span>"


def _table(heading: list[str], lines: list[list[str]]) -> str:
    head = "".join(f"<th>{for_html(cell)}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
