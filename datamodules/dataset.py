"""From a request for rows to a finished batch.

Shapes: B rows of a batch, L tokens of a row.
"""

from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.cache import TokenizedDocuments
from datamodules.masking import Masking
from datamodules.rows import Blocks
from datamodules.sampling import Request
from gau_alpha.vocabulary import Vocabulary

NO_SAMPLE = -1
"""The sample id of a row that is all padding."""


class MLMBatch(TypedDict):
    """A batch for masked language modelling.

    Attributes:
        input_ids: (B, L) int64, hidden tokens replaced, rows filled up with padding.
        attention_mask: (B, L) int64, 1 for tokens, 0 for padding.
        labels: (B, L) int64, the hidden tokens, -100 everywhere else.
        sample_ids: (B,) int64, the numbers of the rows.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    sample_ids: Tensor


class MaskedRows(Dataset[MLMBatch]):
    """Rows of some documents, masked. An item is a whole batch, made in the worker that is asked for it.

    Args:
        documents: The tokens of all documents.
        selected: (documents used,) the documents that belong to this split.
        train_length: Tokens per row, L.
        masking: What to hide.
        vocabulary: Padding and special ids.
        seed: Seed of the masks.
    """

    def __init__(
        self,
        documents: TokenizedDocuments,
        selected: NDArray[np.int64],
        train_length: int,
        masking: Masking,
        vocabulary: Vocabulary,
        seed: int,
    ) -> None:
        self.documents = documents
        self.selected = selected
        self.blocks = Blocks(documents.lengths[selected], train_length)
        self.masking = masking
        self.vocabulary = vocabulary
        self.seed = seed

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, request: Request) -> MLMBatch:
        """Make the batch of an (epoch, rows) request.

        A request for no row is answered with one row of padding without a target: ranks must step
        together, and a loss weighted by targets does not see it.
        """
        epoch, sample_ids = request
        if len(sample_ids) == 0:
            sample_ids = np.array([NO_SAMPLE])
            input_ids, attention_mask = self._padding(1)
        else:
            input_ids, attention_mask = self._rows(sample_ids)
        input_ids, labels = self.masking.apply(input_ids, attention_mask, sample_ids, self.seed, epoch, self.vocabulary)
        return MLMBatch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention_mask),
            labels=torch.from_numpy(labels),
            sample_ids=torch.from_numpy(sample_ids),
        )

    def _padding(self, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shape = (num_rows, self.blocks.row_length)  # (B, L)
        return np.full(shape, self.vocabulary.pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def _rows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        input_ids, attention_mask = self._padding(len(rows))
        for row, (document, start, size) in enumerate(zip(*self.blocks.locate(rows), strict=True)):
            tokens = self.documents.document(int(self.selected[document]))
            input_ids[row, :size] = tokens[start : start + size]
            attention_mask[row, :size] = 1
        return input_ids, attention_mask
