"""Whole documents in their own order, in padded batches: what embeddings are made of.

B documents of a batch, L tokens of the longest.
"""

from collections.abc import Sequence
from itertools import cycle, islice, pairwise
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.cache import Documents


class WholeBatch(TypedDict):
    """Documents as they are, nothing hidden.

    Attributes:
        input_ids: (B, L) int64, filled up with padding.
        attention_mask: (B, L) int64, 1 for tokens, 0 for padding.
        sample_ids: (B,) int64, the numbers of the documents.
    """

    input_ids: Tensor
    attention_mask: Tensor
    sample_ids: Tensor


class FullDocuments(Dataset[WholeBatch]):
    """All documents, one after the other. An item is a whole batch.

    Args:
        documents: The tokens of all documents.
        pad_id: Fills rows.
        tokens_per_batch: Most tokens of a batch, padding included; a longer document is a batch of its own.
        longest: Most tokens of a document, which is cut behind them. None: none is cut.

    Attributes:
        bounds: The first document of each batch, and the number of documents.
    """

    def __init__(self, documents: Documents, pad_id: int, tokens_per_batch: int, longest: int | None = None) -> None:
        self._documents = documents
        self._pad_id = pad_id
        self._lengths = documents.lengths if longest is None else np.minimum(documents.lengths, longest)
        self.bounds = batch_bounds(self._lengths, tokens_per_batch)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def shape(self, index: int) -> tuple[int, int]:
        """Return B and L of a batch, without making it."""
        lengths = self._lengths[self.bounds[index] : self.bounds[index + 1]]
        # A row has at least one place, so that a document without tokens is a row of padding.
        return len(lengths), max(1, int(lengths.max()))

    def __getitem__(self, index: int) -> WholeBatch:
        """Make a batch."""
        sample_ids = np.arange(self.bounds[index], self.bounds[index + 1])  # (B,)
        lengths = self._lengths[sample_ids]
        input_ids = np.full(self.shape(index), self._pad_id, dtype=np.int64)  # (B, L)
        for row, number in enumerate(sample_ids):
            input_ids[row, : lengths[row]] = self._documents.document(int(number))[: lengths[row]]
        attention_mask = (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64)  # (B, L)
        return WholeBatch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention_mask),
            sample_ids=torch.from_numpy(sample_ids),
        )


def batch_bounds(lengths: NDArray[np.int64], tokens_per_batch: int) -> list[int]:
    """Cut rows in their order into batches.

    Args:
        lengths: (rows,) tokens of each.
        tokens_per_batch: Most tokens of a batch, padding included; a longer row is a batch of its own.

    Returns:
        The first row of each batch, and the number of rows.
    """
    bounds, longest = [0], 1
    for row, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if row > bounds[-1] and (row + 1 - bounds[-1]) * longest > tokens_per_batch:
            bounds.append(row)
            longest = max(1, length)
    return [*bounds, len(lengths)] if len(lengths) else [0]


def batches_left(bounds: Sequence[int], done: NDArray[np.int64], num_processes: int) -> list[int]:
    """List the batches that have rows which are not done yet, as many for each process.

    Processes of a sharded strategy wait for each other in every pass, and Lightning wants a batch for each. So the list
    is filled up to a multiple of them, with batches that are done, or else with some once more.

    Args:
        bounds: The first row of each batch, and the number of rows.
        done: (rows done,) their numbers.
        num_processes: Processes that take them in turns.

    Returns:
        Numbers of batches, in order.
    """
    is_done = np.zeros(bounds[-1], dtype=bool)
    is_done[done[done < bounds[-1]]] = True
    finished = [bool(is_done[first:last].all()) for first, last in pairwise(bounds)]
    left = [number for number, whole in enumerate(finished) if not whole]
    again = [number for number, whole in enumerate(finished) if whole] + left
    missing = num_processes if not left else -len(left) % num_processes
    return sorted([*left, *islice(cycle(again), missing)])
