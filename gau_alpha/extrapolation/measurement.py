"""What was measured of one method at one length, before any statistics; it can be kept in a file."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gau_alpha.extrapolation.diagnostics import Diagnostics
from gau_alpha.extrapolation.sums import DocumentSums
from gau_alpha.untrusted.registry import Registry, shown

_PLAIN = Registry({})
_ARRAYS = ("sums", "diagnostics")  # lists of lists in a file
_LARGEST = 2**53  # counts up to here are exact, whether as int or as float


@dataclass(frozen=True)
class Measurement:
    """One method at one length.

    Attributes:
        sums: Of every document.
        diagnostics: What attention did; None if nobody looked.
        num_tokens: Tokens read by the model.
        seconds: Time of the passes, the slowest process counting.
        peak_memory_bytes: Largest of all processes; None where it can't be known.
    """

    sums: DocumentSums
    diagnostics: Diagnostics | None
    num_tokens: int
    seconds: float
    peak_memory_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data; JSON keeps every digit of it."""
        return {
            "sums": self.sums.array.tolist(),
            "diagnostics": None if self.diagnostics is None else self.diagnostics.layers.tolist(),
            "num_tokens": self.num_tokens,
            "seconds": self.seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    @classmethod
    def from_dict(cls, values: object, where: str = "measurement") -> "Measurement":
        """The inverse of ``as_dict``, of data that anyone may have written.

        Args:
            values: Plain data.
            where: Names it in messages.

        Raises:
            ValueError: If a field is unknown, missing or not what the class says, naming it.
        """
        if not isinstance(values, dict) or not all(name in values for name in _ARRAYS):
            raise ValueError(f"{where} must be an object with {' and '.join(_ARRAYS)}, got {shown(values)}.")
        others = {name: value for name, value in values.items() if name not in _ARRAYS}
        known = _PLAIN.arguments(cls, others, where, left_out=_ARRAYS)
        for name, value in known.items():
            if isinstance(value, int | float) and not 0 <= value <= _LARGEST:
                raise ValueError(f"{where}.{name} must lie between 0 and {_LARGEST:,}, got {shown(value)}.")
        if not known["seconds"]:
            raise ValueError(f"{where}.seconds must be more than 0: what is measured takes time.")
        sums = DocumentSums(_array(values["sums"], f"{where}.sums", 8, 8))
        for name, counts in (("positions", sums.positions), ("targets", sums.targets)):
            if not ((counts >= 1) & (counts <= _LARGEST)).all():
                raise ValueError(f"{where}.sums must say of each document how many {name} it has, 1 or more.")
        diagnostics = values["diagnostics"]
        if diagnostics is not None:
            diagnostics = Diagnostics(_array(diagnostics, f"{where}.diagnostics", 3, 2 + 64))
        return cls(**known, sums=sums, diagnostics=diagnostics)


def _array(values: object, where: str, fewest: int, most: int) -> np.ndarray:
    """(rows, columns) float64 of a list of lists; NaN and infinities are numbers: a loss may be such a one."""
    rows = values if isinstance(values, list) else []
    if not rows or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        raise ValueError(f"{where} must be a list of lists of one length, got {shown(values)}.")
    if not fewest <= len(rows[0]) <= most:
        raise ValueError(f"{where} must have {fewest} to {most} columns, got {len(rows[0])}.")
    for row in rows:
        for value in row:
            if type(value) not in (int, float):
                raise ValueError(f"{where} must hold numbers, got {shown(value)}.")
    try:
        return np.array(rows, np.float64)
    except OverflowError as error:
        raise ValueError(f"{where} holds a number that is more than a floating-point number can hold.") from error
