"""Whole documents in their own order, in padded batches: what embeddings are made of.

B documents of a batch, L tokens of the longest.
"""

from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.cache import Documents


class WholeBatch(TypedDict):
    """Documents as they are, nothing hidden, nothing cut.

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
    """

    def __init__(self, documents: Documents, pad_id: int, tokens_per_batch: int) -> None:
        self._documents = documents
        self._pad_id = pad_id
        self._bounds = batch_bounds(documents.lengths, tokens_per_batch)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> WholeBatch:
        """Make a batch."""
        sample_ids = np.arange(self._bounds[index], self._bounds[index + 1])  # (B,)
        lengths = self._documents.lengths[sample_ids]
        # A row has at least one place, so that a document without tokens is a row of padding.
        input_ids = np.full((len(sample_ids), max(1, int(lengths.max()))), self._pad_id, dtype=np.int64)  # (B, L)
        for row, number in enumerate(sample_ids):
            input_ids[row, : lengths[row]] = self._documents.document(int(number))
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
