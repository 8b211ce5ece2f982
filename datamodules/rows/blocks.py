"""Documents cut into rows of one length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.rows.base import Group, Pieces, RowMaker, RowPlan


@dataclass(frozen=True)
class Blocks(RowMaker):
    """Each document is cut into rows of ``train_length`` tokens; its tail makes a shorter row, padded.

    Nothing is dropped and no row spans two documents. An empty document makes no row.
    """

    def plan(self, lengths: NDArray[np.int64], train_length: int, batch_size: int, seed: int) -> "BlockPlan":
        """Cut; see ``RowMaker.plan``."""
        return BlockPlan(lengths, train_length, batch_size)


class BlockPlan(RowPlan):
    """The plan of ``Blocks``: one number per document.

    Args:
        lengths: (documents,) number of tokens of each.
        row_length: Tokens per row.
        batch_size: Rows per batch and rank.
    """

    def __init__(self, lengths: NDArray[np.int64], row_length: int, batch_size: int = 1) -> None:
        self.row_length = row_length
        self._batch_size = batch_size
        self._lengths = lengths
        rows_per_document = -(-lengths // row_length)  # rounded up
        # (documents + 1,): one number per document, not one object per row
        self._first_row = np.concatenate([[0], np.cumsum(rows_per_document)])

    def __len__(self) -> int:
        return int(self._first_row[-1])

    @property
    def groups(self) -> tuple[Group, ...]:
        """All rows have one length."""
        return (Group(self.row_length, self._batch_size, ((0, len(self)),)),)

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """Say which block each row is."""
        # "right" steps over documents without a row, which share their first row with the next document.
        documents = np.searchsorted(self._first_row, rows, side="right") - 1
        starts = (rows - self._first_row[documents]) * self.row_length
        sizes = np.minimum(self.row_length, self._lengths[documents] - starts)
        return Pieces(np.arange(len(rows)), documents, starts, sizes)
