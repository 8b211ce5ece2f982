"""A table once, written as Markdown, LaTeX and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gau_alpha.extrapolation.report import figures
from gau_alpha.extrapolation.report.latex import booktabs
from gau_alpha.extrapolation.report.results import DAGGER
from gau_alpha.untrusted.escaping import for_html, for_latex, for_markdown

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #333; } tbody tr:nth-child(even) { background: #f6f6f6; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What stands in it.
        is_best: Whether it is set bold.
    """

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class Table:
    """A table under a heading.

    Attributes:
        title: The heading.
        name: For the label of the LaTeX table.
        columns: Their headings.
        lines: Cells, the first of each line its name.
        notes: What stands below.
        plot: A plot that stands above, as the name of its file and the figure, if there is one.
    """

    title: str
    name: str
    columns: Sequence[str]
    lines: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    plot: tuple[str, Any] | None = None


def as_markdown(title: str, opening: Sequence[str], tables: Sequence[Table]) -> str:
    """Write tables one below the other, plots as links to their files.

    Args:
        title: Of the text.
        opening: Paragraphs before the first table.
        tables: The tables.
    """
    parts = [f"# {for_markdown(title)}", *map(for_markdown, opening)]
    for table in tables:
        parts.append(f"## {for_markdown(table.title)}")
        if table.plot is not None:
            parts.append(f"![{for_markdown(table.title)}]({table.plot[0]}.png)")
        lines = [[for_markdown(column) for column in table.columns]]
        lines += [
            [
                f"**{for_markdown(cell.text)}**" if cell.is_best and cell.text else for_markdown(cell.text)
                for cell in line
            ]
            for line in table.lines
        ]
        rows = ["| " + " | ".join(line) + " |" for line in lines]
        rule = "|" + "|".join(["---"] + ["---:"] * (len(table.columns) - 1)) + "|"
        parts.append("\n".join([rows[0], rule, *rows[1:]]))
        parts += map(for_markdown, table.notes)
    return "\n\n".join(parts) + "\n"


def as_latex(tables: Sequence[Table]) -> str:
    """Write a LaTeX ``table`` of each.

    Args:
        tables: The tables.
    """
    parts = []
    for table in tables:
        lines = [
            [rf"\textbf{{{_tex(cell.text)}}}" if cell.is_best and cell.text else _tex(cell.text) for cell in line]
            for line in table.lines
        ]
        columns = [for_latex(column) for column in table.columns]
        notes = [_tex(note) for note in table.notes]
        parts.append(booktabs(columns, [lines], _tex(table.title), f"tab:{table.name}", notes))
    return "\n".join(parts)


def _tex(text: str) -> str:
    escaped = for_latex(text)
    for sign, macro in (("±", r"$\pm$"), (DAGGER, r"$^\dagger$"), ("−", "$-$"), ("×", r"$\times$")):
        escaped = escaped.replace(sign, macro)
    return escaped


def as_html(title: str, opening: Sequence[str], tables: Sequence[Table]) -> str:
    """Write one page that needs no network and no other file.

    Args:
        title: Of the page.
        opening: Paragraphs before the first table.
        tables: The tables.
    """
    parts = [f"<h1>{for_html(title)}</h1>", *(f"<p>{for_html(line)}</p>" for line in opening)]
    for table in tables:
        parts.append(f"<h2>{for_html(table.title)}</h2>")
        if table.plot is not None:
            parts.append(figures.svg(table.plot[1], table.plot[0]))
        head = "".join(f"<th>{for_html(column)}</th>" for column in table.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td><b>{for_html(cell.text)}</b></td>" if cell.is_best else f"<td>{for_html(cell.text)}</td>"
                for cell in line
            )
            + "</tr>"
            for line in table.lines
        )
        parts.append(f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
        parts += [f"<p>{for_html(note)}</p>" for note in table.notes]
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{for_html(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
