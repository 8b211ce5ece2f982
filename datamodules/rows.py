"""How documents are cut into the rows that the model trains on."""

import numpy as np
from numpy.typing import NDArray


class Blocks:
    """Each document is cut into blocks of ``row_length`` tokens; its tail makes a shorter row, padded later.

    Nothing is dropped and no row spans two documents. An empty document makes no row.

    Args:
        lengths: (documents,) number of tokens of each.
        row_length: Tokens per row.
    """

    def __init__(self, lengths: NDArray[np.int64], row_length: int) -> None:
        self.row_length = row_length
        self._lengths = lengths
        rows_per_document = -(-lengths // row_length)  # rounded up
        # (documents + 1,): one number per document, not one object per row
        self._first_row = np.concatenate([[0], np.cumsum(rows_per_document)])

    def __len__(self) -> int:
        return int(self._first_row[-1])

    def locate(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Say where rows lie.

        Args:
            rows: (B,) numbers of rows, each in ``[0, len(self))``.

        Returns:
            (B,) documents, (B,) first tokens in them, (B,) numbers of tokens.
        """
        # "right" steps over documents without a row, which share their first row with the next document.
        documents = np.searchsorted(self._first_row, rows, side="right") - 1
        starts = (rows - self._first_row[documents]) * self.row_length
        sizes = np.minimum(self.row_length, self._lengths[documents] - starts)
        return documents, starts, sizes
