"""Rows of an evaluation and what they were measured with, as tables and plots ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report.cells import number, span
from gau_alpha.extrapolation.statistics import flags

DAGGER = "†"
"""Stands behind names of methods that the weights were not trained for, and of others that a note speaks against."""


@dataclass(frozen=True)
class Results:
    """Rows of one or more evaluations and what is needed to measure them again.

    Attributes:
        rows: One per (method, length). All of one protocol, span position and tokenizer.
        run: Plain data: seed, checkpoint, data, versions, whatever the caller knows of the making.

    Raises:
        ValueError: If there is no row, the rows come from different protocols, span positions or tokenizers, a
            (method, length) occurs twice, or a method has more layers at one length than at another.
    """

    rows: Sequence[ExtrapolationResult]
    run: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("A report needs at least one row.")
        for name in ("protocol", "span_position", "tokenizer"):
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

    def to_pandas(self) -> Any:
        """Make a ``pandas.DataFrame``: a row per (method, length), columns as in ``extrapolation.csv``."""
        import pandas as pd  # comes with `datasets`; takes a while to import

        return pd.DataFrame([{name: x for name, x in row.as_dict().items() if name != "layers"} for row in self.rows])

    @property
    def methods(self) -> list[str]:
        """Names in the order of their first row."""
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def lengths(self) -> list[int]:
        """Lengths in tokens, ascending."""
        return sorted({row.length for row in self.rows})

    def row(self, method: str, length: int) -> ExtrapolationResult | None:
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

    @cached_property
    def flags(self) -> dict[str, str]:
        """What speaks against quoting a method or a group beside the others, by name; most have nothing."""
        found: dict[str, dict[str, None]] = {}
        for row in self.rows:
            for name in {row.method, row.group} - {""}:
                found.setdefault(name, {}).update(dict.fromkeys(flags(row.note)))
        return {name: "; ".join(said) for name, said in found.items() if said}

    def marked(self, name: str) -> str:
        """Write a method's or a group's name for a table, with a dagger if it is flagged.

        Args:
            name: Of the method or group.
        """
        return f"{name} {DAGGER}" if name in self.flags else name

    def footnotes(self) -> list[str]:
        """Say what daggers stand for: a line per flagged method."""
        return [f"{DAGGER} {name}: {self.flags[name]}." for name in self.methods if name in self.flags]

    def best(self, length: int) -> float | None:
        """The lowest perplexity at a length among methods that are not flagged; None if there is none.

        Args:
            length: Tokens.
        """
        rows = [row for row in self.rows if row.length == length and row.method not in self.flags]
        return min((row.perplexity for row in rows if row.perplexity is not None), default=None)

    def caption(self) -> str:
        """What the numbers come from: protocol, span position, targets, documents."""
        first = self.rows[0]
        parts = [f"Protocol {first.protocol}"] + (
            [] if first.span_position == "first" else [f"{first.span_position} spans"]
        )
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
