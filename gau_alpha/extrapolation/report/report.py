"""Rows and what they were measured with; the files that hold them."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.extrapolation import ExtrapolationResult
from gau_alpha.extrapolation.report import documents, figures, tables
from gau_alpha.extrapolation.report.best import beside_the_best
from gau_alpha.extrapolation.report.cells import json_text, without_nan
from gau_alpha.extrapolation.report.groups import summaries
from gau_alpha.extrapolation.report.page import page
from gau_alpha.extrapolation.report.results import Results
from gau_alpha.untrusted.escaping import for_csv
from gau_alpha.untrusted.reading import read_json

NAME = "extrapolation"
"""Files are called ``extrapolation.html``, ``.json``, ``.csv``, ``.md``, ``.png`` and ``.documents.parquet``."""

_WIDTH = 100  # columns at least where a table isn't printed on a terminal
_ANY_WIDTH = 10_000
_NESTED = ("layers", "documents")  # fields of a row that no cell holds


@dataclass(frozen=True)
class Report:
    """Results as files, tables and plots, of one protocol or several: each has tables of its own.

    Attributes:
        rows: As ``Results`` wants them, protocol by protocol.
        run: Plain data: seed, checkpoint, data, versions, whatever the caller knows of the making.

    Raises:
        ValueError: If there is no row, or rows of a protocol can't stand in one table; see ``Results``.
    """

    rows: Sequence[ExtrapolationResult]
    run: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", beside_the_best(self.rows))
        if not self.tables:
            raise ValueError("A report needs at least one row.")

    @cached_property
    def tables(self) -> list[Results]:
        """The results of each protocol, in the order of its first row."""
        protocols = dict.fromkeys(row.protocol for row in self.rows)
        return [Results([row for row in self.rows if row.protocol == one], self.run) for one in protocols]

    def to_pandas(self) -> Any:
        """Make a ``pandas.DataFrame``: a row per (protocol, method, length), columns as in ``extrapolation.csv``."""
        import pandas as pd  # comes with `datasets`; takes a while to import

        return pd.DataFrame(
            [{name: x for name, x in row.as_dict().items() if name not in _NESTED} for row in self.rows]
        )

    def write(self, folder: str | Path, latex: bool = False) -> list[Path]:
        """Writes ``extrapolation.html``, ``.json``, ``.csv``, ``.md`` and ``.png``, each whole or not at all.

        Of results that were measured, and not read from a file, there is ``extrapolation.documents.parquet``, too: what
        was measured of each document, see ``documents.COLUMNS``.

        The JSON, which holds all results, comes first and what is drawn last: should a file fail, those before it lie
        there.

        Args:
            folder: Created if it doesn't exist; files of these names in it are replaced.
            latex: Whether to write ``extrapolation.tex`` too, a table for the package booktabs.

        Returns:
            The paths.
        """
        texts = {".json": self.json, ".csv": self.csv, ".md": self.markdown}
        if latex:
            texts[".tex"] = self.latex
        makers: dict[str, Callable[[], str | bytes]] = dict(texts)
        if any(row.documents is not None for row in self.rows):
            makers[".documents.parquet"] = lambda: documents.parquet(self.rows)
        makers |= {".png": self.png, ".html": self.html}
        return [
            write_atomic(Path(folder) / f"{NAME}{suffix}", partial(_write, content=make()))
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
            rows = [ExtrapolationResult.from_dict(row, f"rows[{i}]") for i, row in enumerate(content["rows"])]
            return cls(rows, content["run"])
        except ValueError as error:
            raise ValueError(f"{path} is not a report of this software: {error}") from error

    def json(self) -> str:
        """``{"rows": […], "run": {…}}``; numbers that JSON doesn't know (NaN, infinity) are null.

        Where checkpoints differ in their seed alone, ``"groups": […]`` holds mean and spread.
        """
        content: dict[str, Any] = {"rows": [row.as_dict() for row in self.rows], "run": self.run}
        if found := [one for table in self.tables for one in summaries(table)]:
            content["groups"] = [one.as_dict() for one in found]
        return json_text(content) + "\n"

    def csv(self) -> str:
        """One line per row, all fields but those by layer; empty where there is no number.

        Text that a spreadsheet would take for a formula has an apostrophe before it.
        """
        text = io.StringIO()
        names = [one.name for one in fields(ExtrapolationResult) if one.name not in _NESTED]
        writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for row in self.rows:
            cells = without_nan(row.as_dict()).items()
            writer.writerow({name: for_csv(cell) if isinstance(cell, str) else cell for name, cell in cells})
        return text.getvalue()

    def markdown(self) -> str:
        """A table by method and length for each protocol, then every row in full, then the run."""
        return tables.markdown(self.tables, self.run)

    def latex(self) -> str:
        """The rows of a LaTeX table for each protocol."""
        return "\n".join(map(tables.latex, self.tables))

    def html(self) -> str:
        """One page with everything, that needs no network."""
        return page(self.tables, self.run)

    def png(self) -> bytes:
        """The plot as the bytes of a PNG file."""
        return figures.png(self.figure())

    def image(self) -> np.ndarray:
        """The plot as (height, width, 3) uint8, for loggers of images, which show it small."""
        return figures.image(figures.thumbnail(self.tables))

    def figure(self) -> Figure:
        """Perplexity against length, gain against distance: a panel for each protocol."""
        return figures.overview(self.tables)

    def print(self, console: Console | None = None) -> None:
        """Prints a table for each protocol.

        Args:
            console: Where to, standard output if None: as wide as the table where that is no terminal.
        """
        shown = list(map(tables.screen, self.tables))
        if console is None:
            console = Console()
            if not console.is_terminal:  # nothing is cut in a file or a pipe
                wide = Console(width=_ANY_WIDTH)
                console = Console(width=max(_WIDTH, *(wide.measure(table).maximum for table in shown)))
        for table in shown:
            console.print(table)


def _write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
