"""Local attention: a neighbourhood.

B batch (1 where all rows agree), L length.
"""

import copy
from typing import Self

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import require_train_length
from gau_alpha.position import Position
from gau_alpha.untrusted.limits import require_whole
from gau_alpha.visibility.base import Band, Visibility, within


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
            require_whole("radius", radius)
        self.radius = radius

    def with_train_length(self, train_length: int) -> Self:
        """Fill in half of ``train_length`` for a radius that was left out."""
        if self.radius is not None:
            return self
        bound = copy.deepcopy(self)
        bound.radius = max(1, train_length // 2)
        return bound

    def mask(self, queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
        """Hide keys beyond the radius."""
        return within(self._reach, queries, keys)

    def band(self, layout: SequenceLayout) -> Band:
        """Bound the keys by the radius."""
        # A subclass may have a rule of its own, which has to be asked.
        return Band(self._reach, exact=type(self).mask is Window.mask)

    def num_visible_keys(self, layout: SequenceLayout) -> Tensor:
        """Count the real tokens within reach."""
        index = torch.arange(layout.length, device=layout.device)[None]  # (1, L)
        start = torch.maximum(index - self._reach, layout.document_start)
        stop = torch.minimum(index + self._reach + 1, layout.document_stop)
        return layout.count_real(start, stop)

    def check(self, position: Position) -> None:
        """Refuse positions that are drawn for training: a window never shows their long distances.

        Raises:
            ValueError: If it is such a position.
        """
        if position.samples_positions:
            raise ValueError(
                f"{type(position).__name__} trains on long distances, which a Window hides; use one or the other."
            )

    @property
    def _reach(self) -> int:
        return require_train_length(self, self.radius)
