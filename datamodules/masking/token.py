"""Hiding single tokens.

B rows of a batch, L tokens of a row, V ids of the vocabulary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.masking.base import RateMasking, special_and_ordinary
from datamodules.randomness import Purpose, random_words
from gau_alpha.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenMasking(RateMasking):
    """Hide single tokens, as BERT does: of the targets 80 % become the mask, 10 % a random token, 10 % stay.

    A row of n ordinary tokens gets rate·n targets, rounded up or down at random so that the rate is exact on average,
    but at least one (rows with fewer than 1/rate tokens thus have a slightly higher rate). Special tokens are never
    targets and never drawn at random.

    Args:
        rate: Share of tokens to predict, in (0, 1]; or a schedule over training steps.
        mask_fraction: Share of targets replaced by the mask token.
        random_fraction: Share of targets replaced by a random ordinary token; the remaining targets stay as they are.
    """

    def apply(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
        vocabulary: Vocabulary,
        segment_ids: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hide tokens of a batch; see ``Masking.apply``."""
        batch_size, length = input_ids.shape
        is_special, _ = special_and_ordinary(vocabulary)  # (V,)

        # One word per row, then two per token: padding a row further does not change its masks.
        words = random_words(seed, Purpose.MASKING, epoch, sample_ids, 1 + 2 * length)  # (B, 1 + 2L)
        order, choice = words[:, 1::2], words[:, 2::2]  # (B, L), (B, L)

        candidate = (attention_mask != 0) & ~is_special[input_ids]  # (B, L)
        num_targets = self.num_targets(candidate.sum(axis=1), words[:, 0])  # (B,)

        # The targets of a row are the candidates with the smallest words; everything else comes last.
        order = np.where(candidate, order, np.iinfo(np.uint64).max)
        rank = np.empty((batch_size, length), dtype=np.int64)
        np.put_along_axis(rank, np.argsort(order, axis=1, kind="stable"), np.arange(length)[None, :], axis=1)
        target = rank < num_targets[:, None]  # (B, L)
        return self.hide(input_ids, target, choice, vocabulary)
