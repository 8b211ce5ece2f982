"""What a visibility strategy is, what every one of them hides, and the one that hides no more.

B batch (1 where all rows agree), L length, Lq and Lk queries and keys of a block.
"""

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import Strategy
from gau_alpha.position import Position, RotaryBranch


class Visibility(Strategy):
    """A rule that hides keys from queries."""

    def check(self, position: Position) -> None:
        """Refuse position strategies that this rule makes no sense with.

        Args:
            position: The method's.

        Raises:
            ValueError: With the reason.
        """

    def mask(self, queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
        """Say which keys each query may see by this rule alone.

        Args:
            queries: (Lq,) int64, indices in the row.
            keys: (Lk,) int64, indices in the row.
            layout: Padding, documents and positions of the batch.

        Returns:
            (B|1, Lq, Lk) bool, or None if all are seen.
        """
        raise NotImplementedError

    def key_ranges(self, start: int, stop: int, layout: SequenceLayout) -> tuple[tuple[int, int], ...]:
        """Bound the keys that the queries ``start`` … ``stop - 1`` can see.

        Args:
            start: First query of a block.
            stop: Query behind the last.
            layout: Padding, documents and positions of the batch.

        Returns:
            Ranges (first, last + 1) of indices, ascending and apart from each other; keys outside are never computed.
        """
        return ((0, layout.length),)

    def num_visible_keys(self, layout: SequenceLayout) -> Tensor:
        """Count the keys that each query really sees: not padding, not of another document, not hidden by the rule.

        Returns:
            (B|1, L) int64.
        """
        return count_visible_keys(self, layout)

    def branches(self, position: Position, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Place queries and keys. Rules that also limit distances (LM-Infinite) change what ``position`` says.

        Args:
            position: How the method rotates.
            layout: Padding, documents and positions of the batch.
            key_size: D.

        Returns:
            What is rotated by which angles, and at which distances each branch holds.
        """
        return position.branches(layout, key_size)


class Full(Visibility):
    """Every query sees every key."""

    def mask(self, queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
        """Hide nothing."""
        return None

    def num_visible_keys(self, layout: SequenceLayout) -> Tensor:
        """Return the document's length."""
        return layout.document_length


def allowed(visibility: Visibility, queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
    """Say which keys each query sees, all told: the strategy's rule, padding and documents.

    Args:
        visibility: The rule.
        queries: (Lq,) int64, indices in the row.
        keys: (Lk,) int64, indices in the row.
        layout: Padding, documents and positions of the batch.

    Returns:
        (B|1, Lq, Lk) bool, or None if every query sees every key.
    """
    mask = visibility.mask(queries, keys, layout)
    if layout.real is not None:
        real = layout.real[:, None, keys]  # (B, 1, Lk)
        mask = real.expand(-1, len(queries), -1) if mask is None else mask & real
    if layout.segments is not None:
        same = layout.segments[:, queries, None] == layout.segments[:, None, keys]  # (B, Lq, Lk)
        mask = same if mask is None else mask & same
    return mask


def count_visible_keys(visibility: Visibility, layout: SequenceLayout, block_size: int = 512) -> Tensor:
    """Count visible keys by looking at every pair, a block of queries at a time.

    Args:
        visibility: The rule.
        layout: Padding, documents and positions of the batch.
        block_size: Queries that are looked at together.

    Returns:
        (B|1, L) int64.
    """
    index = torch.arange(layout.length, device=layout.device)
    counts = []
    for queries in index.split(block_size):
        mask = allowed(visibility, queries, index, layout)
        everything = torch.full((1, len(queries)), layout.length, device=layout.device)
        counts.append(everything if mask is None else mask.sum(-1))
    return torch.cat(counts, dim=1)
