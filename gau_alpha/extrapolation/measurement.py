"""What was measured of one method at one length, before any statistics; it can be kept in a file."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gau_alpha.extrapolation.diagnostics import Diagnostics
from gau_alpha.extrapolation.sums import DocumentSums


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
    def from_dict(cls, values: dict[str, Any]) -> "Measurement":
        """The inverse of ``as_dict``."""
        layers = values["diagnostics"]
        return cls(
            **{
                **values,
                "sums": DocumentSums(np.array(values["sums"], np.float64)),
                "diagnostics": None if layers is None else Diagnostics(np.array(layers, np.float64)),
            }
        )
