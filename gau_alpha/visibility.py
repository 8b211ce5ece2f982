"""Which keys a query may see: the axis ``visibility``.

Padding and other documents of a packed row are hidden by ``AttentionMethod`` for every strategy; a strategy adds its
own rule. To add one: subclass ``Visibility`` and implement ``mask`` (then it is right), ``key_ranges`` (then it is
fast) and ``num_visible_keys`` (then counting is fast too). ``tests/gau_alpha/test_strategies.py`` finds the class by
itself.

B batch (1 where all rows agree), L length, Lq and Lk queries and keys of a block.
"""

import copy
from typing import Self

import torch
from torch import Tensor

from gau_alpha.position import Position, View
from gau_alpha.rows import Rows
from gau_alpha.strategy import Strategy, require_positive, require_train_length


class Visibility(Strategy):
    """A rule that hides keys from queries."""

    def mask(self, queries: Tensor, keys: Tensor, rows: Rows) -> Tensor | None:
        """Say which keys each query may see by this rule alone.

        Args:
            queries: (Lq,) int64, indices in the row.
            keys: (Lk,) int64, indices in the row.
            rows: The batch's rows.

        Returns:
            (B|1, Lq, Lk) bool, or None if all are seen.
        """
        raise NotImplementedError

    def key_ranges(self, start: int, stop: int, rows: Rows) -> tuple[tuple[int, int], ...]:
        """Bound the keys that the queries ``start`` … ``stop - 1`` can see.

        Returns:
            Ranges (first, last + 1) of indices, ascending and apart from each other; keys outside are never computed.
        """
        return ((0, rows.length),)

    def num_visible_keys(self, rows: Rows) -> Tensor:
        """Count the keys that each query really sees: not padding, not of another document, not hidden by the rule.

        Returns:
            (B|1, L) int64.
        """
        return count_visible_keys(self, rows)

    def views(self, position: Position, rows: Rows, key_size: int) -> tuple[View, ...]:
        """Place queries and keys. Rules that also limit distances (LM-Infinite) change what ``position`` says."""
        return position.views(rows, key_size)


class Full(Visibility):
    """Every query sees every key."""

    def mask(self, queries: Tensor, keys: Tensor, rows: Rows) -> Tensor | None:
        """Hide nothing."""
        return None

    def num_visible_keys(self, rows: Rows) -> Tensor:
        """Return the document's length."""
        return rows.document_length


class Window(Visibility):
    """A query sees the keys at most ``radius`` tokens away, on both sides: 2 · radius + 1 at most.

    Training-free, though a model trained with it knows nothing else. Cost is linear in the length.

    Args:
        radius: Reach on either side in tokens. Left out, half of train_length.

    Raises:
        ValueError: If ``radius`` is not positive.
    """

    def __init__(self, radius: int | None = None) -> None:
        super().__init__()
        if radius is not None:
            require_positive("radius", radius)
        self.radius = radius

    def bound(self, train_length: int) -> Self:
        """Fill in half of ``train_length`` for a radius that was left out."""
        if self.radius is not None:
            return self
        bound = copy.deepcopy(self)
        bound.radius = max(1, train_length // 2)
        return bound

    def mask(self, queries: Tensor, keys: Tensor, rows: Rows) -> Tensor | None:
        """Hide keys beyond the radius."""
        return ((keys - queries[:, None]).abs() <= self._reach)[None]  # (1, Lq, Lk)

    def key_ranges(self, start: int, stop: int, rows: Rows) -> tuple[tuple[int, int], ...]:
        """Bound the keys by the reach of the first and the last query."""
        return ((max(0, start - self._reach), min(rows.length, stop + self._reach)),)

    def num_visible_keys(self, rows: Rows) -> Tensor:
        """Count the real tokens within reach."""
        index = torch.arange(rows.length, device=rows.device)[None]  # (1, L)
        start = torch.maximum(index - self._reach, rows.document_start)
        stop = torch.minimum(index + self._reach + 1, rows.document_stop)
        return rows.count_real(start, stop)

    @property
    def _reach(self) -> int:
        return require_train_length(self, self.radius)


def allowed(visibility: Visibility, queries: Tensor, keys: Tensor, rows: Rows) -> Tensor | None:
    """Say which keys each query sees, all told: the strategy's rule, padding and documents.

    Args:
        visibility: The rule.
        queries: (Lq,) int64, indices in the row.
        keys: (Lk,) int64, indices in the row.
        rows: The batch's rows.

    Returns:
        (B|1, Lq, Lk) bool, or None if every query sees every key.
    """
    mask = visibility.mask(queries, keys, rows)
    if rows.real is not None:
        real = rows.real[:, None, keys]  # (B, 1, Lk)
        mask = real.expand(-1, len(queries), -1) if mask is None else mask & real
    if rows.segments is not None:
        same = rows.segments[:, queries, None] == rows.segments[:, None, keys]  # (B, Lq, Lk)
        mask = same if mask is None else mask & same
    return mask


def count_visible_keys(visibility: Visibility, rows: Rows, block_size: int = 512) -> Tensor:
    """Count visible keys by looking at every pair, a block of queries at a time.

    Returns:
        (B|1, L) int64.
    """
    index = torch.arange(rows.length, device=rows.device)
    counts = []
    for queries in index.split(block_size):
        mask = allowed(visibility, queries, index, rows)
        everything = torch.full((1, len(queries)), rows.length, device=rows.device)
        counts.append(everything if mask is None else mask.sum(-1))
    return torch.cat(counts, dim=1)
