"""Rows and what they were measured with; the files that hold them."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from gau_alpha.extrapolation import Row, Status
from gau_alpha.files import write_whole
from gau_alpha.report import figures, tables
from gau_alpha.report.cells import number, span, without_nan
from gau_alpha.report.groups import summaries
from gau_alpha.report.page import page

NAME = "extrapolation"
"""Files are called ``extrapolation.html``, ``.json``, ``.csv``, ``.md`` and ``.png``."""

_WIDTH = 100  # columns of a table that isn't printed on a terminal
_NESTED = "layers"  # the one field of a row that no cell holds


@dataclass(frozen=True)
class Report:
    """Rows of one or more evaluations and what is needed to measure them again.

    Attributes:
        rows: One per (method, length). All of one protocol, and of one kind of windows.
        run: Plain data: seed, checkpoint, data, versions, whatever the caller knows of the making.

    Raises:
        ValueError: If there is no row, the rows come from different protocols or windows, or a (method, length) occurs
            twice.
    """

    rows: Sequence[Row]
    run: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("A report needs at least one row.")
        for name in ("protocol", "windows"):
            kinds = sorted({getattr(row, name) for row in self.rows})
            if len(kinds) > 1:
                raise ValueError(f"Rows of the {name} {kinds} can't stand in one table: write a report of each.")
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
        """Writes ``extrapolation.html``, ``.json``, ``.csv``, ``.md`` and ``.png``, each whole or not at all.

        Args:
            folder: Created if it doesn't exist; files of these names in it are replaced.
            latex: Whether to write ``extrapolation.tex`` too, the rows of a table.

        Returns:
            The paths.
        """
        contents = {
            ".json": self.json().encode(),
            ".csv": self.csv().encode(),
            ".md": self.markdown().encode(),
            ".png": self.png(),
            ".html": self.html().encode(),
        }
        if latex:
            contents[".tex"] = self.latex().encode()
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
        """``{"rows": […], "run": {…}}``; numbers that JSON doesn't know (NaN, infinity) are null.

        Where checkpoints differ in their seed alone, ``"groups": […]`` holds mean and spread.
        """
        content: dict[str, Any] = {"rows": [row.as_dict() for row in self.rows], "run": self.run}
        if found := summaries(self.rows):
            content["groups"] = [one.as_dict() for one in found]
        return json.dumps(without_nan(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    def csv(self) -> str:
        """One line per row, all fields but those by layer; empty where there is no number."""
        text = io.StringIO()
        names = [one.name for one in fields(Row) if one.name != _NESTED]
        writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(without_nan(row.as_dict()) for row in self.rows)
        return text.getvalue()

    def markdown(self) -> str:
        """Perplexity by method and length, then every row in full, then the run."""
        return tables.markdown(self)

    def latex(self) -> str:
        """The rows of a LaTeX table."""
        return tables.latex(self)

    def html(self) -> str:
        """One page with everything, that needs no network."""
        return page(self)

    def png(self) -> bytes:
        """The plot as the bytes of a PNG file."""
        return figures.png(self.figure())

    def image(self) -> np.ndarray:
        """The plot as (height, width, 3) uint8, for loggers of images, which show it small."""
        return figures.image(figures.thumbnail(self))

    def figure(self) -> Figure:
        """Perplexity against length."""
        return figures.perplexity(self)

    def print(self, console: Console | None = None) -> None:
        """Prints the table.

        Args:
            console: Where to. Standard output if None, 100 columns wide where that is no terminal.
        """
        if console is None:
            console = Console()
            if not console.is_terminal:
                console = Console(width=_WIDTH)
        console.print(tables.screen(self))

    # ---- cells ----

    def row(self, method: str, length: int) -> Row | None:
        """The row of a method at a length, if there is one.

        Args:
            method: Its name.
            length: Tokens.
        """
        return next((row for row in self.rows if (row.method, row.length) == (method, length)), None)

    def heading(self, length: int) -> str:
        """A length with its ratio: ``4,096 (64×)``."""
        ratio = next(row.length_ratio for row in self.rows if row.length == length)
        return f"{length:,} ({ratio}×)"

    def cell(self, method: str, length: int) -> str:
        """Perplexity at a length, or why there is none.

        Args:
            method: Its name.
            length: Tokens.
        """
        row = self.row(method, length)
        if row is None:
            return ""
        return number(row.perplexity) if row.status is Status.OK else row.status.value

    def accuracy(self, method: str, length: int) -> str:
        """Accuracy at a length in percent; empty if there is none.

        Args:
            method: Its name.
            length: Tokens.
        """
        row = self.row(method, length)
        return "" if row is None or row.accuracy is None else f"{row.accuracy:.1%}"

    def caption(self) -> str:
        """What the numbers come from: protocol, windows, targets, documents."""
        first = self.rows[0]
        parts = [f"Protocol {first.protocol}"] + ([] if first.windows == "first" else [f"windows {first.windows}"])
        measured = [row for row in self.rows if row.status is Status.OK]
        if not measured:
            return f"{', '.join(parts)}."
        targets, documents = (
            span([getattr(row, name) for row in measured]) for name in ("num_targets", "num_documents")
        )
        of = "document" if documents == "1" else "documents"
        text = f"{', '.join(parts)}; {targets} targets in {documents} {of} per length."
        if any(row.num_positions > row.num_targets for row in measured):
            text += " Positions were drawn: numbers are unbiased estimates."
        if any(row.num_repeated_documents for row in measured):
            text += " Short documents were repeated, and what is repeated can be copied."
        return text


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
