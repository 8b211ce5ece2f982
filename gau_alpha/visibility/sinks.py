"""A neighbourhood and the first tokens, at distances that the model has seen. Training-free.

Documents of at most train_length tokens are seen whole, at their true distances: there is nothing to extend.

B batch (1 where all rows agree), L length, D key size.
"""

import copy
import dataclasses
from typing import Self

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout, look_up
from gau_alpha.attention.strategy import require_train_length
from gau_alpha.position import Position, Rotary, RotaryBranch, Rotation
from gau_alpha.untrusted.limits import require_whole
from gau_alpha.visibility.base import Band, Visibility, within


class AttentionSinks(Visibility):
    """A window and the first ``sinks`` tokens, positions counted as if nothing lay between them.

    StreamingLLM (Xiao et al. 2024, arXiv 2309.17453, sec. 3.2) gives keys their places in the cache: sinks 0, 1, …,
    then the window. Published for causal models; here the window reaches to both sides, and the sinks are those at the
    document's start. Where position ids are given, the window reaches so far in these.

    Args:
        radius: Reach of the window on either side in tokens. Left out, half of train_length.
        sinks: Tokens at the start of a document that all its queries see.
        train_length: Tokens per training row. Left out, it is taken from the data.

    Raises:
        ValueError: If ``radius`` or ``sinks`` is not positive.
    """

    paper = "arXiv 2309.17453"

    def __init__(self, radius: int | None = None, sinks: int = 4, train_length: int | None = None) -> None:
        super().__init__()
        if radius is not None:
            require_whole("radius", radius)
        require_whole("sinks", sinks)
        if train_length is not None:
            require_whole("train_length", train_length)
        self.radius = radius
        self.sinks = sinks
        self.train_length = train_length

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length``, and half of it for a radius that was left out."""
        bound = super().with_train_length(train_length)
        if bound.radius is None:
            bound = copy.deepcopy(bound)
            bound.radius = max(1, train_length // 2)
        return bound

    def check(self, position: Position) -> None:
        """Refuse positions whose distances can't be replaced, as they do more or less than rotate, and drawn ones.

        Raises:
            ValueError: If it is such a position.
        """
        name = type(self).__name__
        if not isinstance(position, Rotary):
            raise ValueError(
                f"{name} gives keys other positions by rotating them; {type(position).__name__} rotates nothing."
            )
        if position.biased or position.gained:
            raise ValueError(
                f"{name} gives keys other distances, of which bias and gain of {type(position).__name__} know nothing; "
                f"use one of them."
            )
        if position.remaps_far_keys:
            raise ValueError(f"{name} and {type(position).__name__} both replace far distances; use one of them.")
        if position.samples_positions:
            raise ValueError(
                f"{type(position).__name__} trains on long distances, which {name} hides; use one or the other."
            )

    def mask(self, queries: Tensor, keys: Tensor, layout: SequenceLayout) -> Tensor | None:
        """Hide keys beyond the radius that are no sinks, in documents longer than train_length."""
        if layout.consecutive:
            near = within(self._reach, queries, keys)
        else:  # as branches tell near from far: beyond the window they expect sinks and nothing else
            ids = layout.position_ids
            near = within(self._reach, look_up(ids, queries), look_up(ids, keys))
        sink = look_up(layout.offset, keys) < self.sinks
        short = look_up(layout.document_length, queries) <= self._train_length
        return near | sink | short

    def band(self, layout: SequenceLayout) -> Band | None:
        """Bound the keys by the radius and the sinks, where a row is one long document."""
        one_document = layout.real is None and layout.segments is None
        if layout.length <= self._train_length or not one_document or not layout.consecutive:
            return None  # where documents start and end is not known here
        # A subclass may have a rule of its own, which has to be asked.
        return Band(self._reach, self.sinks, exact=type(self).mask is AttentionSinks.mask)

    def num_visible_keys(self, layout: SequenceLayout) -> Tensor:
        """Count the real tokens within reach and the sinks outside it; all of a document of up to train_length."""
        if not layout.consecutive:
            return super().num_visible_keys(layout)
        index = torch.arange(layout.length, device=layout.device)[None]  # (1, L)
        start = torch.maximum(index - self._reach, layout.document_start)
        stop = torch.minimum(index + self._reach + 1, layout.document_stop)
        before_start, before_stop, length = (
            layout.count_real(layout.document_start, end) for end in (start, stop, layout.document_stop)
        )
        first, second, all_sinks = (count.clamp_max(self.sinks) for count in (before_start, before_stop, length))
        counted = before_stop - before_start + first + (all_sinks - second)  # (B|1, L)
        return torch.where(length <= self._train_length, length, counted)

    def branches(self, position: Position, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Place keys left of the window, which are sinks, where the cache has them."""
        self.check(position)
        assert isinstance(position, Rotary)
        (near,) = position.branches(layout, key_size)
        if layout.length <= self._train_length:
            return (near,)
        query, key = self._far_positions(layout.offset)  # (B|1, L) each
        return (
            RotaryBranch(near.query, near.key, min_distance=-self._reach),
            RotaryBranch(
                self._rotation(query, position, layout, key_size),
                self._rotation(key, position, layout, key_size),
                max_distance=-self._reach - 1,
            ),
        )

    def _far_positions(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of queries and keys, (B|1, L) each, for keys left of the window."""
        return offset.clamp_max(self.sinks + self._reach), offset

    def _rotation(self, positions: Tensor, position: Rotary, layout: SequenceLayout, key_size: int) -> Rotation:
        """Rotate to ``positions`` (B|1, L) in long documents; short ones keep their own, and so true distances."""
        short = layout.document_length <= self._train_length  # (B|1, L)
        return Rotation.by(position.angles(torch.where(short, layout.position_ids, positions), layout, key_size))

    @property
    def _reach(self) -> int:
        return require_train_length(self, self.radius)

    @property
    def _train_length(self) -> int:
        return require_train_length(self, self.train_length)


class LMInfinite(AttentionSinks):
    """A window and the first ``sinks`` tokens, no distance above ``radius``.

    The Λ-shaped mask and the distance ceiling of Han et al. 2024 (arXiv 2308.16137, sec. 4). Published for causal
    models; here the window reaches to both sides, one token further than the authors' local branch of that length,
    which counts the query itself. The ceiling then concerns the sinks alone, on either side: other keys beyond the
    window are hidden.

    Args:
        radius: Reach of the window on either side, and the ceiling, in tokens. Left out, half of train_length.
        sinks: Tokens at the start of a document that all its queries see.
        train_length: Tokens per training row. Left out, it is taken from the data.

    Raises:
        ValueError: If ``radius`` or ``sinks`` is not positive.
    """

    paper = "arXiv 2308.16137"

    def branches(self, position: Position, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Place sinks beyond the window at its edge, on either side."""
        near, *far = super().branches(position, layout, key_size)
        # A sink is right of the window only where there are more sinks than it reaches, or gaps between them.
        if not far or (self.sinks <= self._reach and layout.real is None and layout.consecutive):
            return (near, *far)
        assert isinstance(position, Rotary), "checked above"
        edge = torch.full_like(layout.offset, self._reach)  # (B|1, L)
        return (
            dataclasses.replace(near, max_distance=self._reach),
            *far,
            RotaryBranch(
                self._rotation(torch.zeros_like(edge), position, layout, key_size),
                self._rotation(edge, position, layout, key_size),
                min_distance=self._reach + 1,
            ),
        )

    def _far_positions(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(offset, self._reach), torch.zeros_like(offset)
