"""From a request for rows to a finished batch.

Shapes: B rows of a batch, L tokens of a row.
"""

from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.cache import Documents
from datamodules.masking import Masking
from datamodules.rows import RowPlan
from datamodules.sampling import Request
from gau_alpha.vocabulary import Vocabulary

NO_SAMPLE = -1
"""The sample id of a row that is all padding."""


class MLMBatch(TypedDict):
    """A batch for masked language modelling.

    There are no ``position_ids``: the model counts positions from 0 in every document of a row, and knows then that
    differences of positions are differences of indices.

    Attributes:
        input_ids: (B, L) int64, hidden tokens replaced, rows filled up with padding.
        attention_mask: (B, L) int64, 1 for tokens, 0 for padding.
        labels: (B, L) int64, the hidden tokens, -100 everywhere else.
        sample_ids: (B,) int64, the numbers of the rows.
        segment_ids: (B, L) int64, 1, 2, … along the documents of a packed row, 0 for padding; only for packed rows.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    sample_ids: Tensor
    segment_ids: NotRequired[Tensor]


class MaskedRows(Dataset[MLMBatch]):
    """Rows of some documents, masked. An item is a whole batch, made in the worker that is asked for it.

    Args:
        documents: The tokens of all documents.
        selected: (documents used,) the documents that belong to this split.
        plan: Which pieces of them make up which row.
        masking: What to hide.
        vocabulary: Padding and special ids.
        seed: Seed of the masks.
    """

    def __init__(
        self,
        documents: Documents,
        selected: NDArray[np.int64],
        plan: RowPlan,
        masking: Masking,
        vocabulary: Vocabulary,
        seed: int,
    ) -> None:
        self.documents = documents
        self.selected = selected
        self.plan = plan
        self.masking = masking
        self.vocabulary = vocabulary
        self.seed = seed

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, request: Request) -> MLMBatch:
        """Make the batch of a request.

        A request for no row is answered with one row of padding without a target: ranks must step
        together, and a loss weighted by targets does not see it.
        """
        return self.make(request, request.rows)

    def make(self, request: Request, sample_ids: NDArray[np.int64]) -> MLMBatch:
        """Make the batch of a request whose rows go by names of their own.

        Args:
            request: The request.
            sample_ids: (B,) what masks depend on, and the batch reports.
        """
        epoch, rows, length, step = request
        shape = (max(len(sample_ids), 1), length)  # (B, L)
        input_ids = np.full(shape, self.vocabulary.pad_id, dtype=np.int64)
        segment_ids = np.zeros(shape, dtype=np.int64)
        if len(sample_ids) == 0:
            sample_ids = np.array([NO_SAMPLE])
        else:
            self._fill(input_ids, segment_ids, rows)
        attention_mask = (segment_ids > 0).astype(np.int64)
        masking = self.masking.at(step)
        input_ids, labels = masking.apply(
            input_ids, attention_mask, sample_ids, self.seed, epoch, self.vocabulary, segment_ids=segment_ids
        )
        batch = MLMBatch(
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention_mask),
            labels=torch.from_numpy(labels),
            sample_ids=torch.from_numpy(sample_ids),
        )
        if self.plan.is_packed:
            batch["segment_ids"] = torch.from_numpy(segment_ids)
        return batch

    def _fill(self, input_ids: NDArray[np.int64], segment_ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        before, column, segment = -1, 0, 0
        for row, document, start, size in zip(*self.plan.pieces(rows), strict=True):
            column, segment = (column, segment + 1) if row == before else (0, 1)
            tokens = self.documents.document(int(self.selected[document]))
            input_ids[row, column : column + size] = tokens[start : start + size]
            segment_ids[row, column : column + size] = segment
            before, column = row, column + size
