"""Hiding spans.

B rows of a batch, L tokens of a row.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import is_number, shown
from datamodules.masking.base import uniform
from datamodules.masking.groups import GroupMasking
from datamodules.randomness import Purpose, random_words


@dataclass(frozen=True)
class SpanMasking(GroupMasking):
    """Hide runs of neighbouring tokens, as SpanBERT does, whose lengths are geometrically distributed.

    The text is cut into spans at random, and spans are hidden until the rate is reached; the last one is shortened to
    reach it exactly. Two hidden spans may touch. None reaches across a special token or into another document.

    Args:
        rate: Share of tokens to predict, in (0, 1]; or a schedule over training steps.
        mask_fraction: Share of targets replaced by the mask token.
        random_fraction: Share of targets replaced by a random ordinary token; the remaining targets stay as they are.
        mean_length: Mean number of tokens in a span, at least 1.
    """

    mean_length: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.mean_length) or self.mean_length < 1:
            raise ValueError(f"mean_length={shown(self.mean_length)} must be at least 1. 3 is usual.")

    def begins(
        self,
        input_ids: NDArray[np.int64],
        joined: NDArray[np.bool_],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
    ) -> NDArray[np.bool_]:
        """Begin a span at each token with the same probability, which makes lengths geometric."""
        words = random_words(seed, Purpose.SPANS, epoch, sample_ids, input_ids.shape[1])  # (B, L)
        return uniform(words) < 1 / self.mean_length

    def fit(self, size: int, room: int) -> int:
        """Shorten a span."""
        return room
