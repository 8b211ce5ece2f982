"""What a visibility strategy is, what every one of them hides, and the one that hides no more.

B batch (1 where all rows agree), L length.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout, look_up
from gau_alpha.attention.strategy import Strategy
from gau_alpha.position import Position, RotaryBranch


class Band(NamedTuple):
    """Bounds on what a query may see, which spare a kernel the rest.

    Attributes:
        radius: No key further away is seen, in tokens on either side,
        sinks: but for so many at the start of the row.
        exact: Whether the rule hides no other keys, so that nobody has to ask it about every pair.
    """

    radius: int
    sinks: int = 0
    exact: bool = False


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
        """Say for pairs of a query and a key whether the one sees the other by this rule alone.

        Args:
            queries: (B|1, …) int64, indices in the row, which broadcast against those of the keys: (1, Lq, 1), say.
            keys: (B|1, …) int64, likewise: (1, 1, Lk), say.
            layout: Padding, documents and positions of the batch; ``look_up`` reads it at indices.

        Returns:
            (B|1, …) bool, or None if all are seen.
        """
        raise NotImplementedError

    def band(self, layout: SequenceLayout) -> Band | None:
        """Bound what any query of these rows sees, so that long rows cost no more than that.

        Returns:
            The bounds; None if a query may see any key. Unless they are exact, ``mask`` still decides.
        """
        return None

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


def within(reach: int, queries: Tensor, keys: Tensor) -> Tensor:
    """Say for pairs of places whether they are at most ``reach`` apart, without their distances: these are int64.

    Args:
        reach: In tokens.
        queries: (B|1, …) int64, which broadcast against those of the keys.
        keys: (B|1, …) int64.

    Returns:
        (B|1, …) bool.
    """
    return (keys >= queries - reach) & (keys <= queries + reach)


def allowed(visibility: Visibility, queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
    """Say for pairs of a query and a key whether the one sees the other: by the rule, padding and documents.

    Args:
        visibility: The rule.
        queries: (B|1, …) int64, indices in the row, which broadcast against those of the keys.
        keys: (B|1, …) int64.
        layout: Padding, documents and positions of the batch.

    Returns:
        (B|1, …) bool, which broadcasts to the pairs, or None if every query sees every key.
    """
    mask = visibility.mask(queries, keys, layout)
    if layout.real is not None:
        real = look_up(layout.real, keys)
        mask = real if mask is None else mask & real
    if layout.segments is not None:
        same = look_up(layout.segments, queries) == look_up(layout.segments, keys)
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
    index = torch.arange(layout.length, device=layout.device)[None]  # (1, L)
    counts = []
    for queries in index.split(block_size, dim=1):
        mask = allowed(visibility, queries[:, :, None], index[:, None], layout)  # (B|1, Lq | 1, L)
        if mask is None:
            counts.append(torch.full_like(queries, layout.length))
        else:
            counts.append(mask.sum(-1).expand(-1, queries.shape[1]))
    return torch.cat(counts, dim=1)
