"""The report as one HTML page that needs no network and no other file."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import figures, tables
from gau_alpha.extrapolation.report.cells import ends, json_text, number
from gau_alpha.extrapolation.report.results import Results
from gau_alpha.extrapolation.report.series import Look, families, styles
from gau_alpha.untrusted.escaping import for_html

Families = Mapping[str, Sequence[str]]
"""Names of methods by family."""

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
.tie { text-decoration: underline dotted; text-underline-offset: 3px; }
tr.family th { text-align: left; font-weight: 600; color: #555; padding-top: .7rem; }
.series { position: sticky; top: 0; background: #fffd; border: 1px solid #ddd; padding: .4rem .7rem; font-size: 13px; }
.series div { display: flex; flex-wrap: wrap; gap: 0 .9rem; } .series label { white-space: nowrap; }
svg { max-width: 100%; height: auto; } pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: 12px; }
"""


def page(results: Sequence[Results], run: dict[str, Any]) -> str:
    """The whole page.

    Args:
        results: Those of each protocol.
        run: What they were measured with.
    """
    methods = list(dict.fromkeys(method for one in results for method in one.methods))
    grouped = families(methods, run.get("methods"))
    look = styles(grouped)
    sections = ["<h1>Extrapolation</h1>"]
    sections += _switches(grouped, look)
    sections += [part for place, one in enumerate(results) for part in _sections(one, place, grouped, look)]
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
        f"<style>{_STYLE}{_hiding(grouped, look)}</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _switches(grouped: Families, look: Look) -> list[str]:
    """A box to tick for every method and every family, where there are several methods."""
    if len(look) < 2:
        return []
    lines = []
    for place, (family, members) in enumerate(grouped.items()):
        boxes = [f"<label><input type='checkbox' id='family{place}' checked><b>{family or 'all'}</b></label>"]
        for name in members:
            colour, series = look[name]["color"], look[name]["gid"]
            box = f"<input type='checkbox' id='show-{series}' checked>"
            boxes.append(f"<label style='color: {colour}'>{box}{for_html(name)}</label>")
        lines.append(f"<div>{''.join(boxes)}</div>")
    return [f"<div class='series'>{''.join(lines)}</div>"]


def _hiding(grouped: Families, look: Look) -> str:
    """Rules that hide what is not ticked: rows of tables, and lines with their names in figures."""
    rules = []
    for place, members in enumerate(grouped.values()):
        for name in members:
            series = look[name]["gid"]
            for box in (f"family{place}", f"show-{series}"):
                rules.append(f"body:has(#{box}:not(:checked)) .{series} {{ display: none; }}")
    return "\n".join(rules)


def _sections(report: Results, place: int, grouped: Families, look: Look) -> list[str]:
    """What there is to say of one protocol; ``place`` tells its figures from those of others."""
    sections = [
        f"<h2>{report.measure.capitalize()}</h2><p class='caption'>{for_html(report.caption())}</p>",
        _overview(report, grouped, look),
        f"<p class='note'>{_legend(report)}</p>",
        *(f"<p class='note'>{for_html(line)}</p>" for line in report.footnotes()),
        figures.svg(figures.overview([report], look), f"overview{place}"),
    ]
    if lines := tables.overview_of_groups(report):
        heading = ["mean over checkpoints [range]", *map(report.heading, report.lengths)]
        sections += ["<h2>Several checkpoints</h2>", _table(heading, [list(map(for_html, line)) for line in lines])]
    if not report.is_probe:
        sections += ["<h2>Accuracy</h2>", _accuracies(report, grouped, look)]
    if any(row.baseline for row in report.rows):
        sections += _differences(report, grouped, look)
    for figure, heading_, drawn in (
        ("attention", "Where attention goes", figures.attention(report, look)),
        ("layers", "Entropy by layer", figures.layers(report)),
    ):
        if drawn is not None:
            sections += [f"<h2>{heading_}</h2>", figures.svg(drawn, f"{figure}{place}")]
    return sections


def _overview(report: Results, grouped: Families, look: Look) -> str:
    def cell(row: ExtrapolationResult) -> str:
        if row.status is not Status.OK:
            return f"<span class='failed'>{for_html(row.status.value)}</span>"
        kind = "best" if report.is_best(row) else "tie" if report.is_as_good(row) else ""
        text = report.written(row)
        return (f"<span class='{kind}'>{text}</span>" if kind else text) + _interval(report, row)

    return _by_method(report, grouped, look, cell)


def _by_method(
    report: Results, grouped: Families, look: Look, cell: Callable[[ExtrapolationResult], str], without: str = ""
) -> str:
    """A table of methods, family by family, and lengths."""
    heading = ["method", *map(report.heading, report.lengths)]
    lines = []
    for family, members in grouped.items():
        mine = [name for name in members if name in report.methods and name != without]
        if family and mine:
            lines.append(f"<tr class='family'><th colspan='{len(heading)}'>{family}</th></tr>")
        for name in mine:
            rows = [report.row(name, length) for length in report.lengths]
            cells = [for_html(report.marked(name)), *("" if row is None else cell(row) for row in rows)]
            lines.append(_line(cells, look[name]["gid"]))
    return _framed(heading, lines)


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
    if any(report.is_as_good(row) for row in report.rows):
        best += (
            ". Underlined: not significantly worse (the 95 % interval of the difference, paired by document, holds 0; "
            "each is compared by itself)"
        )
    if any(row.loss_low is not None for row in report.rows):
        return f"Small: 95 % interval over documents. Bold: {best}."
    return f"Bold: {best}. A single document gives no interval."


def _accuracies(report: Results, grouped: Families, look: Look) -> str:
    return _by_method(report, grouped, look, lambda row: report.accuracy(row.method, row.length))


def _differences(report: Results, grouped: Families, look: Look) -> list[str]:
    baseline = next(row.baseline for row in report.rows if row.baseline)
    what = report.measure.capitalize() if report.is_probe else "Loss"
    return [
        f"<h2>{what} minus that of {for_html(baseline)}</h2>",
        _by_method(report, grouped, look, lambda row: _difference(report, row), without=baseline),
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
    return _framed(heading, [_line(line) for line in lines])


def _line(cells: list[str], kind: str = "") -> str:
    return f"<tr{f' class={kind}' if kind else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _framed(heading: list[str], lines: list[str]) -> str:
    head = "".join(f"<th>{for_html(cell)}</th>" for cell in heading)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
