"""A study's report: one text, one page for the browser, tables for a paper, plots, and all numbers as Parquet."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.cli.study.definition import Comparison, Evaluation, Side
from gau_alpha.cli.study.over_seeds import Mean, mean_of
from gau_alpha.cli.study.results import SIGNIFICANT, Results
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import Report, figures
from gau_alpha.extrapolation.report.cells import number
from gau_alpha.extrapolation.report.latex import booktabs
from gau_alpha.untrusted.escaping import for_html, for_latex, for_markdown

DAGGER = "†"
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


def write_report(results: Results, folder: Path, title: str) -> list[Path]:
    """Write ``study.md``, ``.html``, ``.tex``, plots as PNG and PDF, and ``results.parquet``, each whole or not at all.

    Args:
        results: What was measured.
        folder: Where to.
        title: Of the text.

    Returns:
        The paths.
    """
    tables = list(_tables(results))
    plots = [table.plot for table in tables if table.plot is not None]
    opening = _opening(results)
    makers: dict[str, Callable[[], bytes]] = {
        "results.parquet": partial(_parquet, results.rows),
        "summary.parquet": partial(_parquet, list(summary(results))),
        "study.md": lambda: _markdown(title, opening, tables).encode(),
        "study.tex": lambda: _latex(tables).encode(),
        **{f"{name}.png": partial(figures.png, figure) for name, figure in plots},
        **{f"{name}.pdf": partial(_pdf, figure) for name, figure in plots},
        "study.html": lambda: _html(title, opening, tables).encode(),
    }
    return [
        write_atomic(folder / name, lambda path, make=make: path.write_bytes(make()))  # type: ignore[misc]
        for name, make in makers.items()
    ]


def summary(results: Results) -> Iterator[dict[str, Any]]:
    """Yield means over seeds with their intervals, a row per evaluation, training, method and length.

    ``difference`` is the loss minus that of the evaluation's baseline at the same length, paired by seed.
    """
    for evaluation in results.study.evaluations.values():
        for training, method in results.lines(evaluation):
            for ratio, length in results.lengths(evaluation.name).items():
                side = Side(training, method, evaluation.name, ratio)
                loss = results.mean(side)
                if loss is None:
                    continue
                row: dict[str, Any] = {
                    "evaluation": evaluation.name, "training": training, "method": method, "length_ratio": ratio,
                    "length": length, "num_seeds": loss.num_seeds, "perplexity": math.exp(loss.value),
                }  # fmt: skip
                for metric in ("loss", "accuracy", "attention_entropy", "near_share"):
                    row |= _columns(metric, results.mean(side, metric))
                differences = results.differences(side, _baseline(evaluation, ratio))
                yield row | _columns("difference", mean_of(differences) if differences else None)


def _columns(name: str, mean: Mean | None) -> dict[str, float | None]:
    values = (None, None, None) if mean is None else (mean.value, mean.low, mean.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _baseline(evaluation: Evaluation, length_ratio: int) -> Side:
    return Side(evaluation.baseline["training"], evaluation.baseline["method"], evaluation.name, length_ratio)


def _opening(results: Results) -> list[str]:
    study = results.study
    lines = [
        f"Seeds of weights and data order: {', '.join(map(str, study.seeds))}. Brackets hold the 95 % interval over "
        "seeds (Student's t). Perplexity is exp of the mean loss. Bold: the best of its length and what does not "
        "differ from it significantly (the 95 % interval of the difference, paired by seed, includes 0)."
    ]
    if results.missing:
        shown = "; ".join(map(str, results.missing[:5]))
        lines.insert(
            0, f"Not finished: {len(results.missing)} tasks are left ({shown}{' …' * (len(results.missing) > 5)})."
        )
    return lines


def _tables(results: Results) -> Iterator[Table]:
    if results.study.comparisons:
        yield _comparisons(results)
    for evaluation in results.study.evaluations.values():
        if results.lines(evaluation):
            yield _perplexities(results, evaluation)
            yield _differences(results, evaluation)


def _perplexities(results: Results, evaluation: Evaluation) -> Table:
    flags = results.flags(evaluation.name)
    lengths = results.lengths(evaluation.name)
    best = {ratio: results.not_worse(evaluation, ratio) for ratio in lengths}
    lines = []
    for line in results.lines(evaluation):
        cells = [Cell(_marked(line, flags))]
        for ratio in lengths:
            mean = results.mean(Side(*line, evaluation.name, ratio))
            cells.append(Cell(_perplexity(mean), line in best[ratio]))
        lines.append(cells)
    rows = list(_rows(results, evaluation))
    figure = Report(rows).figure() if any(row.loss is not None for row in rows) else None
    return Table(
        title=f"Perplexity: {evaluation.name}",
        name=f"{evaluation.name}-perplexity",
        columns=["training: method", *_headings(lengths)],
        lines=lines,
        notes=[f"{DAGGER} {_named(line)}: {said}." for line, said in flags.items()],
        plot=None if figure is None else (f"{evaluation.name}_perplexity", figure),
    )


def _differences(results: Results, evaluation: Evaluation) -> Table:
    flags = results.flags(evaluation.name)
    lengths = results.lengths(evaluation.name)
    lines = []
    for line in results.lines(evaluation):
        cells = [Cell(_marked(line, flags))]
        for ratio in lengths:
            side, baseline = Side(*line, evaluation.name, ratio), _baseline(evaluation, ratio)
            differences = results.differences(side, baseline) if side != baseline else []
            cells.append(Cell(_difference(mean_of(differences)) if differences else ""))
        lines.append(cells)
    named = _named((evaluation.baseline["training"], evaluation.baseline["method"]))
    return Table(
        title=f"Loss minus that of {named}: {evaluation.name}",
        name=f"{evaluation.name}-difference",
        columns=["training: method", *_headings(lengths)],
        lines=lines,
        notes=["Nats per target, paired by seed, with the 95 % interval over seeds."],
    )


def _comparisons(results: Results) -> Table:
    lines = []
    for one in results.verdicts:
        adjusted = "" if one.adjusted is None else f"{one.adjusted:.2g}"
        difference = "" if one.difference is None else _difference(one.difference)
        cells = [one.comparison.name, _statement(one.comparison), difference, adjusted, one.verdict]
        lines.append([Cell(cell) for cell in cells])
    return Table(
        title="Comparisons named beforehand",
        name="comparisons",
        columns=["comparison", "difference of", "difference", "p (Holm)", "verdict"],
        lines=lines,
        notes=[
            f"Paired by seed, Student's t; p after Holm's correction over these {len(lines)}. A verdict needs p below "
            f"{SIGNIFICANT}. Everything else in this report is exploratory."
        ],
    )


def _statement(one: Comparison) -> str:
    sides = []
    for side in (one.first, one.second):
        sides.append(f"{side.training}: {side.method} at {side.length_ratio}× ({side.evaluation})")
    expected = {"lower": ", expected below 0", "higher": ", expected above 0"}.get(one.expect or "", "")
    expected = f", expected within ±{one.margin:g}" if one.margin is not None else expected
    claim = f"{one.claim} " if one.claim else ""
    return f"{claim}[{one.metric}: {sides[0]} − {sides[1]}{expected}]"


def _rows(results: Results, evaluation: Evaluation) -> Iterator[ExtrapolationResult]:
    """Means over seeds in the form of results, which plots take."""
    first = next(row for row in results.rows if row["evaluation"] == evaluation.name)
    flags = results.flags(evaluation.name)
    for line in results.lines(evaluation):
        for ratio, length in results.lengths(evaluation.name).items():
            mean = results.mean(Side(*line, evaluation.name, ratio))
            known: dict[str, Any] = {}
            if mean is not None:
                known = {"loss": mean.value, "perplexity": math.exp(mean.value)}
                if mean.low is not None and mean.high is not None:
                    known |= {"perplexity_low": math.exp(mean.low), "perplexity_high": math.exp(min(mean.high, 700))}
            yield ExtrapolationResult(
                method=_named(line), length_ratio=ratio, length=length, protocol=first["protocol"],
                status=Status.OK if mean else Status.NO_DOCUMENTS, note=flags.get(line, ""), **known,
            )  # fmt: skip


def _headings(lengths: dict[int, int]) -> list[str]:
    return [f"{length:,} ({ratio}×)" for ratio, length in lengths.items()]


def _named(line: tuple[str, str]) -> str:
    return f"{line[0]}: {line[1]}"


def _marked(line: tuple[str, str], flags: dict[tuple[str, str], str]) -> str:
    return f"{_named(line)} {DAGGER}" if line in flags else _named(line)


def _perplexity(mean: Mean | None) -> str:
    if mean is None:
        return ""
    text = number(math.exp(min(mean.value, 700)))
    if mean.low is None or mean.high is None:
        return text
    low, high = (number(math.exp(min(end, 700))) for end in (mean.low, mean.high))
    return f"{text} [{low}, {high}]"


def _difference(mean: Mean) -> str:
    text = f"{mean.value:+.3f}"
    return text if mean.half_width is None else f"{text} ± {mean.half_width:.3f}"


def _markdown(title: str, opening: Sequence[str], tables: Sequence[Table]) -> str:
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


def _latex(tables: Sequence[Table]) -> str:
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


def _html(title: str, opening: Sequence[str], tables: Sequence[Table]) -> str:
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


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{k: _plain(v) for k, v in row.items()} for row in rows]), content)
    return content.getvalue()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Status) else value


def _pdf(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="pdf", metadata={"CreationDate": None})
    return content.getvalue()
