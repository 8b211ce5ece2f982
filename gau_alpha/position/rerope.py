"""RoPE whose distances stop growing, or grow slowly, beyond a window. Training-free.

A key's side is kept: far to the right is rotated as far right. Documents of at most train_length tokens are plain
RoPE, whatever the window.

B batch (1 where all rows agree), L length, D key size.
"""

import copy
import math
from typing import Self

import torch
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.strategy import require_train_length
from gau_alpha.position.base import RoPE, RotaryBranch, Rotation, exact_dtype
from gau_alpha.untrusted.limits import require_number, require_whole


class _FarRemapped(RoPE):
    """Distances below a window as they are; farther keys are rotated to other positions, on either side.

    Args:
        window: In tokens. Left out, half of train_length.
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.
    """

    remaps_far_keys = True

    def __init__(self, window: int | None, train_length: int | None, base: float) -> None:
        super().__init__(base)
        if window is not None:
            require_whole("window", window)
        if train_length is not None:
            require_whole("train_length", train_length)
        self.window = window
        self.train_length = train_length

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length``, and half of it for a window that was left out."""
        bound = super().with_train_length(train_length)
        if bound.window is None:
            bound = copy.deepcopy(bound)
            bound.window = max(1, train_length // 2)
        return bound

    def branches(self, layout: SequenceLayout, key_size: int) -> tuple[RotaryBranch, ...]:
        """Rotate near keys by their distance, far keys on either side by the one that takes its place."""
        train_length = require_train_length(self, self.train_length)
        window = require_train_length(self, self.window)
        (near,) = super().branches(layout, key_size)
        if layout.length <= train_length:
            return (near,)
        # A document's queries and keys share their regime: short ones keep true positions in every branch.
        positions = layout.position_ids.to(exact_dtype(layout.device))  # (B|1, L)
        short = layout.document_length <= train_length  # (B|1, L)
        keys, left, right = (
            Rotation.by(self.angles(torch.where(short, positions, far), layout, key_size))
            for far in self._far_positions(positions, window)
        )
        return (
            RotaryBranch(near.query, near.key, min_distance=1 - window, max_distance=window - 1),
            RotaryBranch(left, keys, max_distance=-window),
            RotaryBranch(right, keys, min_distance=window),
        )

    def _far_positions(self, positions: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
        """Say where far keys stand, and queries for keys to their left and to their right: (B|1, L) each."""
        raise NotImplementedError


class LeakyReRoPE(_FarRemapped):
    """Distance d up to the window w, sign(d) · (w + (|d| − w) / k) beyond it (Su 2023, "ReRoPE", leaky version).

    Published for causal models, where keys are to the left; here both sides have their own rotation. One pass needs
    up to three score matrices: near keys, far left, far right.

    Args:
        window: w in tokens. Left out, half of train_length.
        factor: k; distances beyond the window shrink by it. Infinite for ReRoPE.
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.
        beyond_training: Say true to allow a window above train_length, whose distances the model never saw.

    Raises:
        ValueError: If ``window`` is not positive or, unsaid, above ``train_length``, ``factor`` is below 1 or ``base``
            not above 1.
    """

    paper = "Su 2023, Rectified Rotary Position Embeddings"

    def __init__(
        self,
        window: int | None = None,
        factor: float = 16.0,
        train_length: int | None = None,
        base: float = 10_000.0,
        beyond_training: bool = False,
    ) -> None:
        super().__init__(window, train_length, base)
        require_number("factor", factor, least=1, most=math.inf, why="below, far distances would grow faster")
        self.factor = factor
        self.beyond_training = beyond_training
        self._check_window()

    def with_train_length(self, train_length: int) -> Self:
        """Fill in ``train_length``, and half of it for a window that was left out."""
        bound = super().with_train_length(train_length)
        bound._check_window()
        return bound

    def _far_positions(self, positions: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
        leak, shift = positions / self.factor, window * (1 - 1 / self.factor)
        return leak, leak + shift, leak - shift

    def _check_window(self) -> None:
        if self.window is None or self.train_length is None or self.beyond_training:
            return
        if self.window > self.train_length:
            raise ValueError(
                f"window {self.window} is above train_length {self.train_length}: rotations would reach distances the "
                f"model never saw. Choose a smaller window, or say beyond_training: true."
            )


class SelfExtend(_FarRemapped):
    """Distances below a window as they are, farther ones between groups of tokens: position p becomes ⌊p / group⌋.

    Jin et al. 2024, "LLM Maybe LongLM: Self-Extend", arXiv 2401.01325, sec. 3: beyond the window w a key j to the left
    of query i is ⌊i / g⌋ − ⌊j / g⌋ + w − ⌊w / g⌋ tokens away, which joins on at the window's edge. Published for causal
    models; here keys to the right mirror that. Training-free; documents of at most train_length tokens are plain RoPE.

    Args:
        window: w in tokens. Left out, half of train_length.
        group: g, tokens that share a position. With windows of half of train_length, 128 keeps rows of up to 64 times
            that length within distances that were trained on.
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.

    Raises:
        ValueError: If ``window`` or ``group`` is not positive, or ``base`` not above 1.
    """

    paper = "arXiv 2401.01325"

    def __init__(
        self,
        window: int | None = None,
        group: int = 128,
        train_length: int | None = None,
        base: float = 10_000.0,
    ) -> None:
        super().__init__(window, train_length, base)
        require_whole("group", group)
        self.group = group

    def _far_positions(self, positions: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
        group, shift = positions // self.group, window - window // self.group
        return group, group + shift, group - shift


class ReRoPE(LeakyReRoPE):
    """Distance d up to the window w, sign(d) · w beyond it (Su 2023, "Rectified Rotary Position Embeddings").

    Args:
        window: w in tokens. Left out, half of train_length.
        train_length: Tokens per training row. Left out, it is taken from the data.
        base: As in ``RoPE``.
        beyond_training: Say true to allow a window above train_length, whose distances the model never saw.

    Raises:
        ValueError: If ``window`` is not positive or, unsaid, above ``train_length``, or ``base`` is not above 1.
    """

    def __init__(
        self,
        window: int | None = None,
        train_length: int | None = None,
        base: float = 10_000.0,
        beyond_training: bool = False,
    ) -> None:
        super().__init__(window, math.inf, train_length, base, beyond_training)
