"""An evaluation as people and programs read it: a table on screen, Markdown, CSV, JSON, a plot."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gau_alpha.extrapolation import Row, Status
from gau_alpha.files import write_whole

NAME = "extrapolation"
"""Files are called ``extrapolation.json``, ``.csv``, ``.md`` and ``.png``."""

_WIDTH = 100  # columns of a table that isn't printed on a terminal
# Okabe & Ito's colours, told apart with any colour vision; markers tell apart what the colours repeat.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")


@dataclass(frozen=True)
class Report:
    """Rows of one or more evaluations and what is needed to measure them again.

    Attributes:
        rows: One per (method, length). All of one protocol.
        run: Plain data: seed, checkpoint, data, versions, whatever the caller knows of the making.

    Raises:
        ValueError: If there is no row, the rows come from different protocols, or a (method, length) occurs twice.
    """

    rows: Sequence[Row]
    run: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("A report needs at least one row.")
        protocols = sorted({row.protocol for row in self.rows})
        if len(protocols) > 1:
            raise ValueError(f"Rows of the protocols {protocols} can't stand in one table: write a report of each.")
        seen: set[tuple[str, int]] = set()
        for row in self.rows:
            if (row.method, row.length) in seen:
                raise ValueError(f"Method {row.method!r} occurs twice at {row.length} tokens: give it another name.")
            seen.add((row.method, row.length))

    @property
    def methods(self) -> list[str]:
        """Names in the order of their first row."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def lengths(self) -> list[int]:
        """Lengths in tokens, ascending."""
        return sorted({row.length for row in self.rows})

    # ---- files ----

    def write(self, folder: str | Path, latex: bool = False) -> list[Path]:
        """Writes ``extrapolation.json``, ``.csv``, ``.md`` and ``.png``, each whole or not at all.

        Args:
            folder: Created if it doesn't exist; files of these names in it are replaced.

        Returns:
            The paths.
        """
        contents = {
            ".json": self.json().encode(),
            ".csv": self.csv().encode(),
            ".md": self.markdown().encode(),
            ".png": self.png(),
        }
        return [
            write_whole(Path(folder) / f"{NAME}{suffix}", partial(_write_bytes, content=content))
            for suffix, content in contents.items()
        ]

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """Reads an ``extrapolation.json``.

        Args:
            path: The file.

        Raises:
            ValueError: If it is not such a file.
        """
        try:
            content = json.loads(Path(path).read_text())
            return cls([Row.from_dict(row) for row in content["rows"]], content["run"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a report of this software: {error!r}.") from error

    def json(self) -> str:
        """``{"rows": […], "run": {…}}``; numbers that JSON doesn't know (NaN, infinity) are null."""
        content = {"rows": [row.as_dict() for row in self.rows], "run": self.run}
        return json.dumps(_without_nan(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def csv(self) -> str:
        """One line per row, all fields; empty where there is no number."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [one.name for one in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(_without_nan(row.as_dict()) for row in self.rows)
        return text.getvalue()

    def markdown(self) -> str:
        """Perplexity by method and length, then every row in full, then the run."""
        lengths = self.lengths
        overview = [["method", *(self._heading(length) for length in lengths)]]
        overview += [[method, *(self._cell(method, length) for length in lengths)] for method in self.methods]
        details = [
            [
                "method", "length", "status", "loss", "perplexity", "accuracy", "entropy", "loss difference", "to",
                "targets", "documents", "too short", "repeated", "seconds", "tokens/s", "peak MB", "note",
            ]
        ]  # fmt: skip
        details += [_details(row) for row in self.rows]
        parts = [
            "# Extrapolation",
            f"Perplexity by length (tokens). {self._caption()}",
            _markdown_table(overview),
            "![Perplexity against length](extrapolation.png)",
            "## All rows",
            "Loss in nats per target; brackets hold the 95 % interval (bootstrap over documents); entropy in nats, "
            "mean over layers and queries; differences are paired.",
            _markdown_table(details),
            "## Run",
            f"```json\n{json.dumps(_without_nan(self.run), indent=2, allow_nan=False, ensure_ascii=False)}\n```",
        ]
        return "\n\n".join(parts) + "\n"

    # ---- screen ----

    def table(self) -> Table:
        """Perplexity and, below it, accuracy: methods down, lengths across."""
        table = Table(box=box.SIMPLE_HEAD, caption=self._caption(), caption_justify="left", pad_edge=False)
        table.add_column("perplexity", no_wrap=True, overflow="fold")
        for length in self.lengths:
            table.add_column(self._heading(length).replace(" ", "\n"), justify="right")
        for method in self.methods:
            cells = (self._cell(method, length) for length in self.lengths)
            table.add_row(method, *(cell.replace("documents", "docs") for cell in cells))
        table.add_section()
        table.add_row("[bold]accuracy[/bold]")
        for method in self.methods:
            table.add_row(method, *(self._accuracy(method, length) for length in self.lengths))
        return table

    def print(self, console: Console | None = None) -> None:
        """Prints the table.

        Args:
            console: Where to. Standard output if None, 100 columns wide where that is no terminal.
        """
        if console is None:
            console = Console()
            if not console.is_terminal:
                console = Console(width=_WIDTH)
        console.print(self.table())

    # ---- plot ----

    def figure(self) -> Figure:
        """Perplexity against length on log axes, one line per method with its interval as a band.

        The dashed line marks the training length. A method's line has a gap where it has no number.
        """
        figure = Figure(figsize=(9, 5), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for place, method in enumerate(self.methods):
            rows = [self._row(method, length) for length in self.lengths]
            style: dict[str, Any] = {"color": _COLOURS[place % len(_COLOURS)]}
            middle, low, high = (_values(rows, name) for name in ("perplexity", "perplexity_low", "perplexity_high"))
            axes.fill_between(self.lengths, low, high, alpha=0.15, linewidth=0, **style)
            axes.plot(self.lengths, middle, marker=_MARKERS[place % len(_MARKERS)], markersize=5, label=method, **style)
        trained = {row.length // row.length_ratio for row in self.rows}
        for train_length in sorted(trained):
            axes.axvline(train_length, color="0.4", linestyle="--", linewidth=1, zorder=0)
            axes.annotate(
                f"trained at {train_length}", (train_length, 1), xycoords=("data", "axes fraction"),
                xytext=(3, -4), textcoords="offset points", rotation=90, va="top", color="0.4", fontsize=8,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        if not any(row.perplexity is not None and math.isfinite(row.perplexity) for row in self.rows):
            axes.set_ylim(1, 10)  # nothing to draw, and a log axis has no limits of its own
        axes.set_xticks(self.lengths, [f"{length:,}" for length in self.lengths])
        axes.set_xticks([], minor=True)
        axes.set_xlim(self.lengths[0] / 1.25, self.lengths[-1] * 1.25)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.set_xlabel("evaluated length (tokens)")
        axes.set_ylabel(f"perplexity at hidden tokens ({self.rows[0].protocol})")
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        return figure

    def png(self) -> bytes:
        """The plot as the bytes of a PNG file."""
        content = io.BytesIO()
        self.figure().savefig(content, format="png")
        return content.getvalue()

    def image(self) -> np.ndarray:
        """The plot as (height, width, 3) uint8, for loggers of images."""
        canvas = FigureCanvasAgg(self.figure())
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    # ---- cells ----

    def _row(self, method: str, length: int) -> Row | None:
        return next((row for row in self.rows if (row.method, row.length) == (method, length)), None)

    def _heading(self, length: int) -> str:
        ratio = next(row.length_ratio for row in self.rows if row.length == length)
        return f"{length:,} ({ratio}×)"

    def _cell(self, method: str, length: int) -> str:
        row = self._row(method, length)
        if row is None:
            return ""
        return _number(row.perplexity) if row.status is Status.OK else row.status.value

    def _accuracy(self, method: str, length: int) -> str:
        row = self._row(method, length)
        return "" if row is None or row.accuracy is None else f"{row.accuracy:.1%}"

    def _caption(self) -> str:
        measured = [row for row in self.rows if row.status is Status.OK]
        if not measured:
            return f"Protocol {self.rows[0].protocol}."
        targets, documents = (
            _range([getattr(row, name) for row in measured]) for name in ("num_targets", "num_documents")
        )
        return f"Protocol {self.rows[0].protocol}; {targets} targets in {documents} documents per length."


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Callable[[float, float, str], None]]:
    """A bar with the share done and the time left, fed by the engine's ``progress``.

    Args:
        console: Where to draw; standard output if None.

    Yields:
        What to hand to ``ExtrapolationEngine.rows`` as ``progress``.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        bar = bars.add_task("evaluating", total=None)
        yield lambda done, total, description: bars.update(bar, completed=done, total=total, description=description)


def _details(row: Row) -> list[str]:
    return [
        row.method,
        f"{row.length:,} ({row.length_ratio}×)",
        row.status.value,
        _with_interval(row.loss, row.loss_low, row.loss_high, "{:.4f}".format),
        _with_interval(row.perplexity, row.perplexity_low, row.perplexity_high, _number),
        _with_interval(row.accuracy, row.accuracy_low, row.accuracy_high, "{:.2%}".format),
        "" if row.attention_entropy is None else f"{row.attention_entropy:.3f}",
        _with_interval(row.loss_difference, row.loss_difference_low, row.loss_difference_high, "{:+.4f}".format),
        row.baseline,
        f"{row.num_targets:,}",
        f"{row.num_documents:,}",
        f"{row.num_short_documents:,}",
        f"{row.num_repeated_documents:,}",
        "" if row.seconds is None else f"{row.seconds:.2f}",
        "" if row.tokens_per_second is None else f"{row.tokens_per_second:,.0f}",
        "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e6:,.0f}",
        row.note,
    ]


def _with_interval(value: float | None, low: float | None, high: float | None, written: Callable[[float], str]) -> str:
    if value is None:
        return ""
    return written(value) if low is None or high is None else f"{written(value)} [{written(low)}, {written(high)}]"


def _number(value: float | None) -> str:
    """Three or more digits, never more than eight characters: 3.41, 23.5, 1,234, 2.1e+07."""
    if value is None:
        return ""
    if not 0.01 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _markdown_table(cells: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
    rule = "|" + "|".join(["---"] + ["---:"] * (len(cells[0]) - 1)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _values(rows: Sequence[Row | None], name: str) -> np.ndarray:
    """(L,) float64, NaN where there is no number: a gap in the plot."""
    values = [None if row is None else getattr(row, name) for row in rows]
    return np.array([math.nan if value is None or math.isinf(value) else value for value in values])


def _without_nan(value: Any) -> Any:
    """The same data with None for numbers that are NaN or infinite."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
