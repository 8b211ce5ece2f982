"""Several documents in a row.

P pieces of documents, R rows, L tokens of a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.rows.base import Group, Pieces, RowMaker, RowPlan
from datamodules.rows.blocks import BlockPlan


@dataclass(frozen=True)
class Packed(RowMaker):
    """Rows are filled with several short documents, side by side, so that little is padding.

    Documents above ``train_length`` are cut as by ``Blocks``. Pieces are put into rows by best fit, longest first. The
    batch says by ``segment_ids`` which document a token is of; the model lets no token see another document and counts
    positions from 0 in each.
    """

    def plan(self, lengths: NDArray[np.int64], train_length: int, batch_size: int, seed: int) -> "PackedPlan":
        """Pack; see ``RowMaker.plan``."""
        blocks = BlockPlan(lengths, train_length)
        _, document, start, size = blocks.pieces(np.arange(len(blocks)))
        return PackedPlan(document, start, size, train_length, batch_size)


class PackedPlan(RowPlan):
    """The plan of ``Packed``: four numbers per piece.

    Args:
        document: (P,) document of each piece.
        start: (P,) index of its first token in the document.
        size: (P,) number of tokens, at most ``row_length``.
        row_length: Tokens per row.
        batch_size: Rows per batch and rank.
    """

    is_packed = True

    def __init__(
        self,
        document: NDArray[np.int64],
        start: NDArray[np.int64],
        size: NDArray[np.int64],
        row_length: int,
        batch_size: int,
    ) -> None:
        self.row_length = row_length
        self._batch_size = batch_size
        row = best_fit(size, row_length)  # (P,)
        # Within a row the longest piece comes first, as it was put there.
        order = np.lexsort((np.arange(len(size)), -size, row))
        self._document, self._start, self._size = document[order], start[order], size[order]
        self._first_piece = np.concatenate([[0], np.cumsum(np.bincount(row))])  # (R + 1,)

    def __len__(self) -> int:
        return len(self._first_piece) - 1

    @property
    def groups(self) -> tuple[Group, ...]:
        """All rows have one length."""
        return (Group(self.row_length, self._batch_size, ((0, len(self)),)),)

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """List the pieces of each row."""
        first = self._first_piece[rows]
        count = self._first_piece[rows + 1] - first
        row = np.repeat(np.arange(len(rows)), count)
        # the n-th piece overall, counted from the first one of its row
        within = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        piece = np.repeat(first, count) + within
        return Pieces(row, self._document[piece], self._start[piece], self._size[piece])


def best_fit(size: NDArray[np.int64], row_length: int) -> NDArray[np.int64]:
    """Put pieces into rows: longest first, each into the fullest row that has room for it.

    Pieces of one size are handled together, so that the work grows with the number of different sizes and not with the
    number of pieces.

    Args:
        size: (P,) tokens of each piece, in [1, row_length].
        row_length: Room in a row, L.

    Returns:
        (P,) the row of each piece, counted from 0 without a gap.
    """
    row = np.empty(len(size), dtype=np.int64)
    order = np.argsort(-size, kind="stable")  # (P,)
    longest = int(size.max(initial=0))  # may be far below the length of a row
    counts = np.bincount(size, minlength=longest + 1)  # (longest + 1,)
    # Rows by the room that is left in them, and which rooms there are at all.
    by_room: dict[int, NDArray[np.int64]] = {}
    num_rows = position = 0
    for one_size in range(longest, 0, -1):
        waiting = order[position : position + counts[one_size]]
        position += len(waiting)
        while len(waiting):
            room = min((room for room in by_room if room >= one_size), default=None)
            if room is None:
                # Every new row takes as many of them as fit: after the first, it is the fullest row with room.
                room = row_length
                new = -(-len(waiting) // (row_length // one_size))
                by_room[room] = np.arange(num_rows, num_rows + new)
                num_rows += new
            each = min(room // one_size, len(waiting))
            rows = by_room.pop(room)
            full, rest = divmod(len(waiting), each)
            if len(rows) > full + (rest > 0):
                by_room[room] = rows[full + (rest > 0) :]
            rows = rows[: full + (rest > 0)]
            taken = waiting[: len(rows) * each]
            waiting = waiting[len(taken) :]
            row[taken] = np.repeat(rows, each)[: len(taken)]
            filled = len(taken) // each
            for some, left in ((rows[:filled], room - each * one_size), (rows[filled:], room - rest * one_size)):
                if len(some) and left:
                    by_room[left] = np.concatenate([by_room[left], some]) if left in by_room else some
    return row
