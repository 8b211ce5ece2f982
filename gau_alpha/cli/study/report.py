"""A study's report: one text, one page for the browser, tables for a paper, plots, and all numbers as Parquet."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.cli.study.definition import METRICS, Comparison, Evaluation, Side
from gau_alpha.cli.study.over_seeds import Mean, mean_of
from gau_alpha.cli.study.results import SIGNIFICANT, Results
from gau_alpha.cli.study.tables import Cell, Table, as_html, as_latex, as_markdown
from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report import Report, figures
from gau_alpha.extrapolation.report.cells import number
from gau_alpha.extrapolation.report.results import DAGGER

MEASURES = {"loss": "perplexity", "gain": "gain"}
"""What is averaged over seeds, and what is shown of it."""

DIAGNOSTICS = {"attention_entropy": "Attention entropy in nats", "near_share": "Share of attention near"}
"""Further tables, where an evaluation has measured that."""


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
        "study.md": lambda: as_markdown(title, opening, tables).encode(),
        "study.tex": lambda: as_latex(tables).encode(),
        **{f"{name}.png": partial(figures.png, figure) for name, figure in plots},
        **{f"{name}.pdf": partial(_pdf, figure) for name, figure in plots},
        "study.html": lambda: as_html(title, opening, tables).encode(),
    }
    return [
        write_atomic(folder / name, lambda path, make=make: path.write_bytes(make()))  # type: ignore[misc]
        for name, make in makers.items()
    ]


def summary(results: Results) -> Iterator[dict[str, Any]]:
    """Yield means over seeds with their intervals, a row per evaluation, training, method and length.

    ``loss_difference``, or ``gain_difference`` of the protocol ``copy``, is that minus the baseline's of the evaluation
    at the same length, paired by seed.
    """
    for evaluation in results.study.evaluations.values():
        for metric in MEASURES:
            for training, method in results.lines(evaluation, metric):
                for ratio, length in results.lengths(evaluation.name, metric, training).items():
                    side = Side(training, method, evaluation.name, ratio)
                    mean = results.mean(side, metric)
                    if mean is None:
                        continue
                    row: dict[str, Any] = {
                        "evaluation": evaluation.name, "training": training, "method": method, "length_ratio": ratio,
                        "length": length, "num_seeds": mean.num_seeds,
                    }  # fmt: skip
                    for name in ("gain",) if metric == "gain" else (one for one in METRICS if one != "gain"):
                        row |= _columns(name, results.mean(side, name))
                    differences = results.differences(side, _baseline(evaluation, ratio), metric)
                    yield row | _columns(f"{metric}_difference", mean_of(differences) if differences else None)


def _columns(name: str, mean: Mean | None) -> dict[str, float | None]:
    values = (None, None, None) if mean is None else (mean.value, mean.low, mean.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _baseline(evaluation: Evaluation, length_ratio: int) -> Side:
    return Side(evaluation.baseline["training"], evaluation.baseline["method"], evaluation.name, length_ratio)


def _opening(results: Results) -> list[str]:
    study = results.study
    seeds = ", ".join(map(str, study.seeds))
    for one in study.trainings.values():
        seeds += "" if one.seeds == study.seeds else f"; of {one.name} {', '.join(map(str, one.seeds))}"
    lines = [
        f"Seeds of weights and data order: {seeds}. Brackets hold the 95 % interval over "
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
        for metric, measure in MEASURES.items():
            if results.lines(evaluation, metric):
                yield _means(results, evaluation, metric, measure)
                yield _differences(results, evaluation, metric)
        for metric, title in DIAGNOSTICS.items():
            if any(row[metric] is not None for row in results.of(evaluation.name, metric)):
                yield _diagnostic(results, evaluation, metric, title)


def _means(results: Results, evaluation: Evaluation, metric: str, measure: str) -> Table:
    rows = list(_rows(results, evaluation, metric))
    flags = results.flags(evaluation.name)
    lengths = results.lengths(evaluation.name, metric)
    best = {ratio: results.not_worse(evaluation, ratio, metric) for ratio in lengths}
    notes = [f"{DAGGER} {_named(line)}: {said}." for line, said in flags.items()]
    notes += results.gaps(evaluation, metric)
    if apart := [f"{ratio}×" for ratio in lengths if not results.are_paired(evaluation, ratio, metric)]:
        notes.append(f"At {', '.join(apart)} not all read the same documents: no best is marked.")

    def cell(line: tuple[str, str], ratio: int) -> Cell:
        mean = results.mean(Side(*line, evaluation.name, ratio), metric)
        return Cell(perplexity_shown(mean) if metric == "loss" else number_shown(mean), line in best[ratio])

    drawn = any(getattr(row, measure) is not None for row in rows)
    return Table(
        title=f"{measure.capitalize()}: {evaluation.name}",
        name=f"{evaluation.name}-{measure}",
        columns=["training: method", *_headings(results, evaluation, metric)],
        lines=_lines(results, evaluation, metric, cell),
        notes=notes,
        plot=(f"{evaluation.name}_{measure}", figures.overview(Report(rows).tables)) if drawn else None,
    )


def _differences(results: Results, evaluation: Evaluation, metric: str) -> Table:
    def cell(line: tuple[str, str], ratio: int) -> Cell:
        side, baseline = Side(*line, evaluation.name, ratio), _baseline(evaluation, ratio)
        differences = results.differences(side, baseline, metric) if side != baseline else []
        return Cell(number_shown(mean_of(differences), "+") if differences else "")

    named = _named((evaluation.baseline["training"], evaluation.baseline["method"]))
    return Table(
        title=f"{metric.capitalize()} minus that of {named}: {evaluation.name}",
        name=f"{evaluation.name}-{metric}-difference",
        columns=["training: method", *_headings(results, evaluation, metric)],
        lines=_lines(results, evaluation, metric, cell),
        notes=["Nats per target, paired by seed, with the 95 % interval over seeds."],
    )


def _diagnostic(results: Results, evaluation: Evaluation, metric: str, title: str) -> Table:
    def cell(line: tuple[str, str], ratio: int) -> Cell:
        return Cell(number_shown(results.mean(Side(*line, evaluation.name, ratio), metric)))

    return Table(
        title=f"{title}: {evaluation.name}",
        name=f"{evaluation.name}-{metric}",
        columns=["training: method", *_headings(results, evaluation, metric)],
        lines=_lines(results, evaluation, metric, cell),
    )


def _lines(
    results: Results, evaluation: Evaluation, metric: str, cell: Callable[[tuple[str, str], int], Cell]
) -> list[list[Cell]]:
    flags = results.flags(evaluation.name)
    lengths = results.lengths(evaluation.name, metric)
    return [
        [Cell(_marked(line, flags)), *(cell(line, ratio) for ratio in lengths)]
        for line in results.lines(evaluation, metric)
    ]


def _comparisons(results: Results) -> Table:
    lines: list[list[Cell]] = []
    flagged: dict[str, None] = {}
    fewer: list[str] = []
    for one in results.verdicts:
        adjusted = "" if one.adjusted is None else f"{one.adjusted:.2g}"
        difference = "" if one.difference is None else number_shown(one.difference, "+")
        cells = [one.comparison.name, _statement(results, one.comparison), difference, adjusted, one.verdict]
        lines.append([Cell(cell) for cell in cells])
        sides = (one.comparison.first, one.comparison.second)
        shared = set.intersection(*(set(results.study.trainings[side.training].seeds) for side in sides))
        if one.difference is not None and one.difference.num_seeds < len(shared):
            fewer.append(
                f"{one.comparison.name}: over {one.difference.num_seeds} of {len(shared)} seeds; the others are not "
                "finished, have no number, or read other documents."
            )
        for side in sides:
            line = (side.training, side.method)
            if said := results.flags(side.evaluation).get(line):
                flagged[f"{DAGGER} {_named(line)}: {said}."] = None
    return Table(
        title="Comparisons named beforehand",
        name="comparisons",
        columns=["comparison", "difference of", "difference", "p (Holm)", "verdict"],
        lines=lines,
        notes=[
            f"Paired by seed, Student's t; p after Holm's correction over these {len(lines)}. A verdict needs p below "
            f"{SIGNIFICANT}. Everything else in this report is exploratory.",
            *fewer,
            *flagged,
        ],
    )


def _statement(results: Results, one: Comparison) -> str:
    sides = []
    for side in (one.first, one.second):
        named = _marked((side.training, side.method), results.flags(side.evaluation))
        sides.append(f"{named} at {side.length_ratio}× ({side.evaluation})")
    expected = {"lower": ", expected below 0", "higher": ", expected above 0"}.get(one.expect or "", "")
    expected = f", expected within ±{one.margin:g}" if one.margin is not None else expected
    claim = f"{one.claim} " if one.claim else ""
    return f"{claim}[{one.metric}: {sides[0]} − {sides[1]}{expected}]"


def _rows(results: Results, evaluation: Evaluation, metric: str) -> Iterator[ExtrapolationResult]:
    """Means over seeds in the form of results, which plots take."""
    measured = {(row["training"], row["length_ratio"]): row for row in results.of(evaluation.name, metric)}
    flags = results.flags(evaluation.name)
    for line in results.lines(evaluation, metric):
        for ratio, length in results.lengths(evaluation.name, metric, line[0]).items():
            mean, like = results.mean(Side(*line, evaluation.name, ratio), metric), measured[line[0], ratio]
            known: dict[str, Any] = {}
            if mean is not None and metric == "gain":
                known = {"gain": mean.value, "gain_low": mean.low, "gain_high": mean.high}
            elif mean is not None:
                ends = {"perplexity": mean.value, "perplexity_low": mean.low, "perplexity_high": mean.high}
                known = {name: None if end is None else _exp(end) for name, end in ends.items()}
            yield ExtrapolationResult(
                method=_named(line), length_ratio=ratio, length=length, protocol=like["protocol"],
                status=Status.OK if mean else Status.NO_DOCUMENTS, note=flags.get(line, ""),
                distance=like["distance"], **known,
            )  # fmt: skip


def _headings(results: Results, evaluation: Evaluation, metric: str) -> Iterator[str]:
    rows = list(_rows(results, evaluation, metric))
    (table,) = Report(rows).tables
    for ratio in results.lengths(evaluation.name, metric):
        lengths = {row.length for row in rows if row.length_ratio == ratio}
        # trainings on rows of several lengths share the ratio, and no number of tokens
        yield table.heading(*lengths) if len(lengths) == 1 else f"{ratio}×"


def _named(line: tuple[str, str]) -> str:
    return f"{line[0]}: {line[1]}"


def _marked(line: tuple[str, str], flags: dict[tuple[str, str], str]) -> str:
    return f"{_named(line)} {DAGGER}" if line in flags else _named(line)


def perplexity_shown(mean: Mean | None) -> str:
    """Write a mean loss as perplexity with the interval over seeds; nothing where there is none.

    Args:
        mean: In nats.
    """
    if mean is None:
        return ""
    value, *ends = (None if one is None else number(_exp(one)) for one in (mean.value, mean.low, mean.high))
    return str(value) if None in ends else f"{value} [{', '.join(map(str, ends))}]"


def number_shown(mean: Mean | None, sign: str = "") -> str:
    """Write a mean with the half of its interval over seeds; nothing where there is none.

    Args:
        mean: In whatever unit.
        sign: ``+`` to write it in front of what is above 0.
    """
    if mean is None:
        return ""
    text = f"{mean.value:{sign}.3f}"
    return text if mean.half_width is None else f"{text} ± {mean.half_width:.3f}"


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700))  # the interval of a few seeds may reach far


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = io.BytesIO()
    names = dict.fromkeys(name for row in rows for name in row)  # not every row has each
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), content)
    return content.getvalue()


def _pdf(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="pdf", metadata={"CreationDate": None})
    return content.getvalue()
