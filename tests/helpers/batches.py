"""Batches as plain data, which can be compared."""

from collections.abc import Iterable, Mapping
from itertools import islice

from torch import Tensor


def read(loader: Iterable[Mapping[str, Tensor]], count: int | None = None) -> list[dict[str, list]]:
    """Read the first ``count`` batches, or all."""
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in islice(loader, count)]
