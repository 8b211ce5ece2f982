"""Results of one protocol and what they were measured with, as tables and plots ask for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report.cells import number, span
from gau_alpha.extrapolation.result import MEASURES
from gau_alpha.extrapolation.statistics import flags

DAGGER = "†"
"""Stands behind names of methods that the weights were not trained for, and of others that a note speaks against."""


@dataclass(frozen=True)
class Results:
    """Rows of one or more evaluations by one protocol, which may stand in one table.

    What a table is about is the perplexity, the lower the better; under the protocol ``copy`` the gain, the higher the
    better, or ``recall`` the accuracy, and its columns are distances.

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

    @property
    def is_probe(self) -> bool:
        """Whether the table is about what is found far away, and not about perplexity."""
        return self.measure != "perplexity"

    @property
    def measure(self) -> str:
        """What the table is about: the name of a field of its rows."""
        return MEASURES.get(self.rows[0].protocol, "perplexity")

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

    def distance(self, length: int) -> int:
        """What stands for a length on an axis: the length, or under a probe how far away its passage is.

        Args:
            length: Tokens.
        """
        row = next(row for row in self.rows if row.length == length)
        return length if row.distance is None else row.distance

    def heading(self, length: int) -> str:
        """A length, or distance, with its ratio to the training length: ``4,096 (64×)``.

        Args:
            length: Tokens.
        """
        row = next(row for row in self.rows if row.length == length)
        if row.distance is None:
            return f"{length:,} ({row.length_ratio}×)"
        return f"{row.distance:,} ({row.distance * row.length_ratio / length:.3g}×)"

    def cell(self, method: str, length: int) -> str:
        """What the table is about at a length, or why there is no number.

        Args:
            method: Its name.
            length: Tokens.
        """
        row = self.row(method, length)
        if row is None:
            return ""
        return self.written(row) if row.status is Status.OK else row.status.value

    def written(self, row: ExtrapolationResult) -> str:
        """Write what the table is about.

        Args:
            row: One of its rows.
        """
        value = getattr(row, self.measure)
        if self.measure == "perplexity":
            return number(value)
        if value is None:
            return ""
        if self.measure == "accuracy":
            return f"{value:.1%}"
        return f"{value:+.3f}" if value else "0"  # to the last digit: nothing so far away was seen

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
        """The lowest perplexity, or highest gain or accuracy, at a length, of methods without a flag.

        Args:
            length: Tokens.
        """
        rows = [row for row in self.rows if row.length == length and row.method not in self.flags]
        values = [value for row in rows if (value := getattr(row, self.measure)) is not None]
        return (max if self.is_probe else min)(values, default=None)

    def is_best(self, row: ExtrapolationResult) -> bool:
        """Whether a row is the best of its length.

        Args:
            row: One of the table's.
        """
        value = getattr(row, self.measure)
        return value is not None and row.method not in self.flags and value == self.best(row.length)

    def is_as_good(self, row: ExtrapolationResult) -> bool:
        """Whether a row does not differ significantly from the best of its length, and nothing speaks against it.

        Args:
            row: One of the table's.
        """
        low, high = row.best_difference_low, row.best_difference_high
        return row.method not in self.flags and low is not None and high is not None and low <= 0 <= high

    def difference(self, row: ExtrapolationResult) -> tuple[float | None, float | None, float | None]:
        """The loss, gain or accuracy, minus the baseline's, and both ends of its interval.

        Args:
            row: One of the table's.
        """
        name = self.measure if self.is_probe else "loss"
        low, high = (getattr(row, f"{name}_difference_{end}") for end in ("low", "high"))
        return getattr(row, f"{name}_difference"), low, high

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
        per = "distance" if self.is_probe else "length"
        text = f"{', '.join(parts)}; {targets} targets in {documents} {of} per {per}."
        if self.measure == "gain":
            text += " Gain: nats that a passage, read so many tokens before, takes off the loss at its tokens."
        if any(row.num_positions > row.num_targets for row in measured):
            text += " Positions were drawn: numbers are unbiased estimates."
        if any(row.num_repeated_documents for row in measured):
            text += " Short documents were repeated, and what is repeated can be copied."
        return text
