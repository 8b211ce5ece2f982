"""Examples in padded batches.

B rows of a batch.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.dataset import NO_SAMPLE
from datamodules.labelled.examples import IGNORED, Example
from datamodules.sampling import Request


class LabelledBatches(Dataset[dict[str, Tensor]]):
    """Examples, read by a sampler's requests. An item is a whole batch, padded to its longest row.

    A request for no row is answered with one row that is all padding and has no label: ranks must step together.

    Args:
        examples: The examples, all with the same arrays.
        pad_id: Fills ``input_ids``; labels are filled with −100, and everything else with 0.
    """

    def __init__(self, examples: Sequence[Example], pad_id: int) -> None:
        self.examples = examples
        self._fill = {"input_ids": pad_id, "labels": IGNORED}

    def __len__(self) -> int:
        return len(self.examples)

    def shape(self, request: Request) -> tuple[int, int]:
        """Return the number of sequences of a batch and the tokens of the longest, without making it."""
        shapes = [self.examples[row].arrays["input_ids"].shape for row in request.rows]
        return sum(math.prod(shape[:-1]) for shape in shapes), max((shape[-1] for shape in shapes), default=1)

    def __getitem__(self, request: Request) -> dict[str, Tensor]:
        """Make the batch of a request."""
        rows = [self.examples[row].arrays for row in request.rows]
        sample_ids = np.asarray(request.rows, dtype=np.int64)
        if not rows:
            rows = [{name: np.full_like(x, self._filling(name)) for name, x in self.examples[0].arrays.items()}]
            sample_ids = np.array([NO_SAMPLE])
        arrays = {name: stack([row[name] for row in rows], self._filling(name)) for name in rows[0]}
        return {name: torch.from_numpy(array) for name, array in {**arrays, "sample_ids": sample_ids}.items()}

    def _filling(self, name: str) -> int:
        return self._fill.get(name, 0)


def stack(arrays: Sequence[NDArray[Any]], fill: int) -> NDArray[np.int64]:
    """Stack arrays of equal rank, each filled up behind its end along every dimension: (B, …).

    Args:
        arrays: B arrays (…), of any sizes.
        fill: What is put behind their ends.
    """
    shape = np.max([array.shape for array in arrays], axis=0).astype(int) if arrays[0].ndim else ()
    stacked = np.full((len(arrays), *shape), fill, dtype=np.int64)
    for row, array in enumerate(arrays):
        stacked[row, ...][tuple(slice(size) for size in array.shape)] = array
    return stacked
