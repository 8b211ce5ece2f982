"""Which tokens are hidden, and behind what.

Shapes: B rows of a batch, L tokens of a row, V ids of the vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from datamodules.randomness import Purpose, random_words
from gau_alpha.vocabulary import Vocabulary

IGNORED = -100
"""The label of a position that is no target."""


class Masking(ABC):
    """A rule that hides tokens for the model to predict.

    A new rule must be a pure function: what it does to a row depends on nothing but that row, its sample id, the seed
    and the epoch. Then masks do not depend on batch size, workers, ranks or the point of a resume.
    """

    @abstractmethod
    def apply(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
        vocabulary: Vocabulary,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hide tokens of a batch.

        Args:
            input_ids: (B, L) tokens.
            attention_mask: (B, L) 1 for tokens, 0 for padding.
            sample_ids: (B,) what tells the rows apart.
            seed: Seed of the run.
            epoch: Epoch, so that the same row is masked differently the next time.
            vocabulary: Which ids are special.

        Returns:
            (B, L) tokens with the hidden ones replaced, (B, L) labels: the hidden token, or -100 elsewhere.
        """


@dataclass(frozen=True)
class TokenMasking(Masking):
    """Hide single tokens, as BERT does: of the targets 80 % become the mask, 10 % a random token, 10 % stay.

    A row of n ordinary tokens gets rate·n targets, rounded up or down at random so that the rate is exact on average,
    but at least one (rows with fewer than 1/rate tokens thus have a slightly higher rate). Special tokens are never
    targets and never drawn at random.

    Args:
        rate: Share of tokens to predict, in (0, 1].
        mask_fraction: Share of targets replaced by the mask token.
        random_fraction: Share of targets replaced by a random ordinary token; the remaining targets stay as they are.
    """

    rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate={self.rate} must lie in (0, 1]. 0.15 is usual.")
        shares = (self.mask_fraction, self.random_fraction, 1 - self.mask_fraction - self.random_fraction)
        # a sum such as 0.7 + 0.3 may miss 1 by a rounding error
        if min(shares) < -1e-9:
            raise ValueError(
                f"mask_fraction={self.mask_fraction} and random_fraction={self.random_fraction} must be at least 0 "
                "and sum to at most 1. 0.8 and 0.1 are usual."
            )

    def apply(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
        vocabulary: Vocabulary,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hide tokens of a batch; see ``Masking.apply``."""
        batch_size, length = input_ids.shape
        is_special, ordinary = _special_and_ordinary(vocabulary)  # (V,), (ordinary ids,)

        # One word per row, then two per token: padding a row further does not change its masks.
        words = random_words(seed, Purpose.MASKING, epoch, sample_ids, 1 + 2 * length)  # (B, 1 + 2L)
        rounding = _uniform(words[:, 0])  # (B,)
        order, choice = words[:, 1::2], words[:, 2::2]  # (B, L), (B, L)

        candidate = (attention_mask != 0) & ~is_special[input_ids]  # (B, L)
        num_candidates = candidate.sum(axis=1)  # (B,)
        num_targets = np.floor(self.rate * num_candidates + rounding).astype(np.int64)
        num_targets = np.clip(num_targets, np.minimum(1, num_candidates), num_candidates)

        # The targets of a row are the candidates with the smallest words; everything else comes last.
        order = np.where(candidate, order, np.iinfo(np.uint64).max)
        rank = np.empty((batch_size, length), dtype=np.int64)
        np.put_along_axis(rank, np.argsort(order, axis=1, kind="stable"), np.arange(length)[None, :], axis=1)
        target = rank < num_targets[:, None]  # (B, L)

        # The upper half of a word decides what happens, the lower half which token is drawn.
        fate = _uniform(choice)
        drawn = ordinary[((choice & np.uint64(0xFFFFFFFF)) * np.uint64(len(ordinary)) >> np.uint64(32)).astype(np.intp)]
        masked = np.where(target & (fate < self.mask_fraction), vocabulary.mask_id, input_ids)
        replaced = target & (fate >= self.mask_fraction) & (fate < self.mask_fraction + self.random_fraction)
        return np.where(replaced, drawn, masked), np.where(target, input_ids, IGNORED)


def _uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn the upper 32 bits into numbers in [0, 1)."""
    return (words >> np.uint64(32)) / 2.0**32


@lru_cache(maxsize=8)
def _special_and_ordinary(vocabulary: Vocabulary) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    is_special = np.zeros(vocabulary.size, dtype=np.bool_)
    is_special[list(vocabulary.special_ids)] = True
    return is_special, np.flatnonzero(~is_special)
