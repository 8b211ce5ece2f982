"""Rows of several lengths, one length per batch.

P pieces of documents, each a row; N lengths.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import require_at_least, require_kind
from datamodules.randomness import Purpose, random_words
from datamodules.rows.base import Group, Pieces, RowMaker, RowPlan
from datamodules.rows.lengths import LengthDistribution

_WORDS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class VariableLength(RowMaker):
    """Batches of one length each, the lengths drawn from a distribution, all batches worth about as many tokens.

    Documents are cut once, at random, into rows whose lengths have the stated shares of the batches; a document that is
    shorter than the length it drew, and the tail of any other, go to the shortest length that holds them. Which batch
    comes when, and which rows it holds, is drawn anew in every epoch, the same on every rank.

    Args:
        lengths: The distribution: ``FixedSet``, ``Uniform``, ``LogUniform`` of ``datamodules.rows``. The longest must
            not be above ``train_length``.
        tokens_per_batch: Tokens per batch and rank, padding included: a batch of length l has tokens_per_batch / l
            rows, rounded down. Default: ``batch_size`` times ``train_length``.

    Raises:
        ValueError: If the lengths are no distribution, or ``tokens_per_batch`` is out of range.
    """

    lengths: LengthDistribution
    tokens_per_batch: int | None = None

    def __post_init__(self) -> None:
        require_kind(LengthDistribution, lengths=self.lengths)
        if self.tokens_per_batch is not None:
            require_at_least(1, tokens_per_batch=self.tokens_per_batch)

    def plan(self, lengths: NDArray[np.int64], train_length: int, batch_size: int, seed: int) -> "VariablePlan":
        """Cut; see ``RowMaker.plan``.

        Raises:
            ValueError: If a length is above ``train_length``, or no row of the longest fits into a batch.
        """
        row_lengths = self.lengths.lengths()
        longest = int(row_lengths[-1])
        if longest > train_length:
            raise ValueError(
                f"The longest of the row lengths is {longest}, above train_length={train_length}, which methods take "
                "for the longest trained on. Raise train_length or choose shorter rows."
            )
        budget = batch_size * train_length if self.tokens_per_batch is None else self.tokens_per_batch
        if budget < longest:
            raise ValueError(
                f"tokens_per_batch={budget} does not hold one row of {longest} tokens, the longest of the row lengths. "
                "Raise it or choose shorter rows."
            )
        return VariablePlan(lengths, row_lengths, self.lengths.shares(), budget, seed)


class VariablePlan(RowPlan):
    """The plan of ``VariableLength``: three numbers per row, rows sorted by length.

    Args:
        lengths: (documents,) number of tokens of each.
        row_lengths: (N,) lengths of rows, ascending.
        shares: (N,) share of batches of each.
        tokens_per_batch: Tokens per batch and rank.
        seed: Seed of the cuts.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        row_lengths: NDArray[np.int64],
        shares: NDArray[np.float64],
        tokens_per_batch: int,
        seed: int,
    ) -> None:
        # Batches are worth the same: a length with share s of the batches has s of the tokens, s / length of the rows.
        of_rows = shares / row_lengths
        bounds = np.cumsum(of_rows / of_rows.sum())[:-1]  # (N - 1,)
        cut = [_cut(*some, row_lengths, bounds, seed) for some in _chunks(lengths, int(row_lengths[0]))]
        document, start, size = (np.concatenate(column) for column in zip(*cut, strict=True))  # (P,) each
        kind = np.searchsorted(row_lengths, size)  # (P,) the shortest length that holds it
        order = np.argsort(kind, kind="stable")
        self._document, self._start, self._size = document[order], start[order], size[order]
        stops = np.cumsum(np.bincount(kind, minlength=len(row_lengths))).tolist()  # (N,)
        self._groups = tuple(
            Group(length, tokens_per_batch // length, ((first, stop),))
            for length, first, stop in zip(row_lengths.tolist(), [0, *stops], stops, strict=False)
            if stop > first
        )

    @property
    def groups(self) -> tuple[Group, ...]:
        """A group per length that any row has."""
        return self._groups

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """Say which piece each row is."""
        return Pieces(np.arange(len(rows)), self._document[rows], self._start[rows], self._size[rows])


def _chunks(lengths: NDArray[np.int64], shortest: int) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield a number, the first document and the lengths of stretches of documents that need about 10⁶ draws each."""
    draws = np.cumsum(-(-lengths // shortest))
    first = number = 0
    while first < len(lengths):
        before = draws[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(draws, before + _WORDS_AT_ONCE, side="right")))
        yield number, first, lengths[first:stop]
        first, number = stop, number + 1


def _cut(
    number: int,
    first: int,
    lengths: NDArray[np.int64],
    row_lengths: NDArray[np.int64],
    bounds: NDArray[np.float64],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut the documents of a stretch: (P,) document, start and size of the pieces."""
    draws = -(-lengths // row_lengths[0])  # (documents,) enough even if every piece is as short as can be
    document = np.repeat(np.arange(len(lengths)), draws)
    words = random_words(seed, Purpose.LENGTH, 0, [number], len(document))[0]
    drawn = row_lengths[np.searchsorted(bounds, (words >> np.uint64(32)) / 2.0**32, side="right")]
    drawn_before = np.cumsum(drawn) - drawn
    first_draw = np.cumsum(draws) - draws  # (documents,)
    start = drawn_before - np.repeat(drawn_before[np.minimum(first_draw, len(drawn) - 1)], draws)
    left = lengths[document] - start
    used = left > 0
    return first + document[used], start[used], np.minimum(drawn, left)[used]
