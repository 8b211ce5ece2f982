"""What a plan of rows is.

P pieces of documents, B rows of a batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Pieces(NamedTuple):
    """Pieces of documents, in the order in which they stand in their rows.

    Attributes:
        row: (P,) index in the batch of the row that a piece is in, ascending.
        document: (P,) document.
        start: (P,) index of its first token in the document.
        size: (P,) number of tokens, at least 1.
    """

    row: NDArray[np.int64]
    document: NDArray[np.int64]
    start: NDArray[np.int64]
    size: NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Rows that share batches, because they have one length.

    Attributes:
        length: Tokens per row, padding included.
        batch_size: Rows per batch and rank.
        ranges: First row and the one behind the last; one range per source of a mixture.
        weights: Share of each range in an epoch; None: every row once.
    """

    length: int
    batch_size: int
    ranges: tuple[tuple[int, int], ...]
    weights: tuple[float, ...] | None = None

    @property
    def num_rows(self) -> int:
        """Rows of all ranges together."""
        return sum(stop - first for first, stop in self.ranges)


class RowPlan(ABC):
    """Which pieces of which documents make up which row: a few numbers per row at most, no objects.

    Attributes:
        is_packed: Whether a row may hold several documents.
    """

    is_packed: bool = False

    @property
    @abstractmethod
    def groups(self) -> tuple[Group, ...]:
        """All rows, by length."""

    @abstractmethod
    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """Say what rows hold.

        Args:
            rows: (B,) numbers of rows, each in ``[0, len(self))``.
        """

    def __len__(self) -> int:
        return sum(group.num_rows for group in self.groups)

    def efficiency(self, num_tokens: int) -> float:
        """Return the share of positions that hold tokens, in an epoch with every row once.

        Args:
            num_tokens: Tokens of all rows.
        """
        return num_tokens / sum(group.num_rows * group.length for group in self.groups)


class RowMaker(ABC):
    """A way to make rows."""

    @abstractmethod
    def plan(self, lengths: NDArray[np.int64], train_length: int, batch_size: int, seed: int) -> RowPlan:
        """Lay out rows so that every token of every document is in exactly one.

        Args:
            lengths: (documents,) number of tokens of each.
            train_length: Tokens per row, or of the longest row.
            batch_size: Rows per batch and rank, or what is worth as many tokens.
            seed: Seed of whatever is random.

        Raises:
            ValueError: If that is not possible.
        """
