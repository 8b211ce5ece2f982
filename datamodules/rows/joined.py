"""The plans of several sources as one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.rows.base import Group, Pieces, RowPlan


class JoinedPlan(RowPlan):
    """Plans one behind the other, each over its own documents; rows of one length share batches.

    Args:
        plans: The plans.
        num_documents: Documents of each.
        weights: Share of each in an epoch; None: every row once.
    """

    def __init__(self, plans: Sequence[RowPlan], num_documents: Sequence[int], weights: Sequence[float] | None) -> None:
        self.is_packed = plans[0].is_packed
        self._plans = plans
        self._first_document = np.cumsum([0, *num_documents])
        self._first_row = np.cumsum([0, *map(len, plans)])
        ranges: dict[tuple[int, int], list[tuple[tuple[int, int], float]]] = {}
        for part, plan in enumerate(plans):
            offset = int(self._first_row[part])
            for group in plan.groups:
                ((first, stop),) = group.ranges
                weight = 1.0 if weights is None else weights[part]
                ranges.setdefault((group.length, group.batch_size), []).append(
                    ((offset + first, offset + stop), weight)
                )
        self._groups = tuple(
            Group(
                length,
                batch_size,
                tuple(span for span, _ in spans),
                None if weights is None else tuple(weight for _, weight in spans),
            )
            for (length, batch_size), spans in sorted(ranges.items())
        )

    @property
    def groups(self) -> tuple[Group, ...]:
        """A group per length, a range per source."""
        return self._groups

    def pieces(self, rows: NDArray[np.int64]) -> Pieces:
        """Ask the plan of each row."""
        part = np.searchsorted(self._first_row, rows, side="right") - 1  # (B,)
        found = []
        for one in np.unique(part):
            where = np.flatnonzero(part == one)
            pieces = self._plans[one].pieces(rows[where] - self._first_row[one])
            document = pieces.document + self._first_document[one]
            found.append(Pieces(where[pieces.row], document, pieces.start, pieces.size))
        joined = [np.concatenate(column) for column in zip(*found, strict=True)]
        order = np.argsort(joined[0], kind="stable")
        return Pieces(*(column[order] for column in joined))
