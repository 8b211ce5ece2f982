"""Passes cut into batches, and batches dealt to processes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pass:
    """One row of a batch: a stretch of a document with some positions hidden.

    Attributes:
        document: The document's place in the list of all documents.
        positions: (T,) int64, the hidden positions.
        first: Whether it is the first pass over its document, the one in which attention is looked at.
        stratum: The stratum it was drawn from; None if its targets stand for themselves.
        stratum_size: How many positions the stratum has.
    """

    document: int
    positions: np.ndarray
    first: bool = True
    stratum: int | None = None
    stratum_size: int = 0


@dataclass(frozen=True)
class Dealt:
    """A batch as one process receives it.

    Attributes:
        passes: Which passes it is made of.
        counts: False for a spare batch, run only because other processes still have one to run.
    """

    passes: range
    counts: bool


def rows_per_batch(tokens_per_batch: int, length: int, num_passes: int) -> int:
    """Say how many rows a batch takes: as many as the budget holds, at least one and at most all.

    Args:
        tokens_per_batch: The budget.
        length: Tokens of a row.
        num_passes: How many rows there are.
    """
    return min(max(1, tokens_per_batch // length), num_passes)


def deal(num_passes: int, rows: int, rank: int, world_size: int) -> list[Dealt]:
    """The batches of one process.

    Batches are formed first and then dealt whole, the r-th process taking r, r + W, …: so a batch's content, and with
    it the rounding of its results, doesn't depend on the number of processes W. Every process gets the same number of
    batches, because sharded weights need all of them in every forward pass; what is lacking is a repetition of the
    last batch, which doesn't count.

    Args:
        num_passes: Number of passes.
        rows: Passes per batch.
        rank: Number of this process.
        world_size: Number of processes W.
    """
    batches = [range(start, min(start + rows, num_passes)) for start in range(0, num_passes, rows)]
    num_rounds = -(-len(batches) // world_size)
    mine = range(rank, num_rounds * world_size, world_size)
    return [Dealt(batches[min(index, len(batches) - 1)], index < len(batches)) for index in mine]
