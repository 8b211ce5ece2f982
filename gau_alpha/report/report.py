"""Rows and what they were measured with; the files that hold them."""

import csv
import io
from collections.abc import Callable, Sequence
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
from gau_alpha.report.cells import json_text, number, span, without_nan
from gau_alpha.report.groups import summaries
from gau_alpha.report.page import page
from gau_alpha.untrusted.escaping import for_csv
from gau_alpha.untrusted.reading import read_json

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
        ValueError: If there is no row, the rows come from different protocols or windows, a (method, length) occurs
            twice, or a method has more layers at one length than at another.
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
        depths: dict[str, int] = {}
        for row in self.rows:
            if row.layers is not None:
                depth = len(row.layers["attention_entropy"])
                if depths.setdefault(row.method, depth) != depth:
                    raise ValueError(f"Method {row.method!r} has {depths[row.method]} layers, but {depth} elsewhere.")

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

        The JSON, which holds everything, comes first and what is drawn last: should a file fail, those before it lie
        there.

        Args:
            folder: Created if it doesn't exist; files of these names in it are replaced.
            latex: Whether to write ``extrapolation.tex`` too, the rows of a table.

        Returns:
            The paths.
        """
        texts = {".json": self.json, ".csv": self.csv, ".md": self.markdown}
        if latex:
            texts[".tex"] = self.latex
        makers: dict[str, Callable[[], str | bytes]] = {**texts, ".png": self.png, ".html": self.html}
        return [
            write_whole(Path(folder) / f"{NAME}{suffix}", partial(_write, content=make()))
            for suffix, make in makers.items()
        ]

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """Reads an ``extrapolation.json``.

        Args:
            path: The file.

        Raises:
            ValueError: If there is no such file, or it is not such a file; names the field.
        """
        content = read_json(Path(path))
        try:
            for name, kind, called in (("rows", list, "a list"), ("run", dict, "an object")):
                if not isinstance(content, dict) or not isinstance(content.get(name), kind):
                    raise ValueError(f'it must be an object in which "{name}" is {called}.')
            return cls([Row.from_dict(row, f"rows[{i}]") for i, row in enumerate(content["rows"])], content["run"])
        except ValueError as error:
            raise ValueError(f"{path} is not a report of this software: {error}") from error

    def json(self) -> str:
        """``{"rows": […], "run": {…}}``; numbers that JSON doesn't know (NaN, infinity) are null.

        Where checkpoints differ in their seed alone, ``"groups": […]`` holds mean and spread.
        """
        content: dict[str, Any] = {"rows": [row.as_dict() for row in self.rows], "run": self.run}
        if found := summaries(self.rows):
            content["groups"] = [one.as_dict() for one in found]
        return json_text(content) + "\n"

    def csv(self) -> str:
        """One line per row, all fields but those by layer; empty where there is no number.

        Text that a spreadsheet would take for a formula has an apostrophe before it.
        """
        text = io.StringIO()
        names = [one.name for one in fields(Row) if one.name != _NESTED]
        writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in self.rows:
            cells = without_nan(row.as_dict()).items()
            writer.writerow({name: for_csv(cell) if isinstance(cell, str) else cell for name, cell in cells})
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


def _write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
