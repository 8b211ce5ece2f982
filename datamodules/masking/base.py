"""What a masking rule is, and what all rules share.

B rows of a batch, L tokens of a row, V ids of the vocabulary.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import is_number, shown
from datamodules.masking.schedules import RateSchedule
from datamodules.tokenizers import Tokenizer
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
        segment_ids: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hide tokens of a batch.

        Args:
            input_ids: (B, L) tokens.
            attention_mask: (B, L) 1 for tokens, 0 for padding.
            sample_ids: (B,) what tells the rows apart.
            seed: Seed of the run.
            epoch: Epoch, so that the same row is masked differently the next time.
            vocabulary: Which ids are special.
            segment_ids: (B, L) equal within a document of a packed row; None: each row is one document.

        Returns:
            (B, L) tokens with the hidden ones replaced, (B, L) labels: the hidden token, or -100 elsewhere.
        """

    def at(self, step: int | None) -> "Masking":
        """Return the rule as it is at a step; None means outside of training, where nothing may vary."""
        return self

    def with_tokenizer(self, tokenizer: Tokenizer, sample: NDArray[np.int32]) -> "Masking":
        """Return the rule with what it has to know of the tokenizer.

        Args:
            tokenizer: The tokenizer.
            sample: (tokens,) some of the corpus.

        Raises:
            ValueError: If the rule would not do on these tokens what its name says.
        """
        return self


@dataclass(frozen=True)
class RateMasking(Masking):
    """A rule with a rate, and BERT's way of hiding targets: 80 % the mask, 10 % a random token, 10 % as they are.

    Args:
        rate: Share of ordinary tokens to predict, in (0, 1]; or a schedule over training steps.
        mask_fraction: Share of targets replaced by the mask token.
        random_fraction: Share of targets replaced by a random ordinary token; the remaining targets stay as they are.
    """

    rate: float | RateSchedule = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.rate, RateSchedule) and not (is_number(self.rate) and 0 < self.rate <= 1):
            raise ValueError(f"rate={shown(self.rate)} must lie in (0, 1]. 0.15 is usual.")
        shares = (self.mask_fraction, self.random_fraction)
        # a sum such as 0.7 + 0.3 may miss 1 by a rounding error
        if not all(is_number(share) and share >= -1e-9 for share in shares) or sum(shares) > 1 + 1e-9:
            raise ValueError(
                f"mask_fraction={shown(self.mask_fraction)} and random_fraction={shown(self.random_fraction)} must be "
                "at least 0 and sum to at most 1. 0.8 and 0.1 are usual."
            )

    def at(self, step: int | None) -> Self:
        """Put in the schedule's rate; outside of training its last one, so that validations can be compared."""
        return replace(self, rate=self.rate.at(step)) if isinstance(self.rate, RateSchedule) else self

    @property
    def fixed_rate(self) -> float:
        """The rate, where it is a number."""
        assert not isinstance(self.rate, RateSchedule), "at() first"
        return self.rate

    def num_targets(self, num_candidates: NDArray[np.int64], rounding: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Say how many targets rows get: exact on average, at least one where there is a candidate.

        Args:
            num_candidates: (B,) ordinary tokens of each row.
            rounding: (B,) a random word each.

        Returns:
            (B,) numbers of targets.
        """
        num_targets = np.floor(self.fixed_rate * num_candidates + uniform(rounding)).astype(np.int64)
        return np.clip(num_targets, np.minimum(1, num_candidates), num_candidates)

    def hide(
        self,
        input_ids: NDArray[np.int64],
        target: NDArray[np.bool_],
        choice: NDArray[np.uint64],
        vocabulary: Vocabulary,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hide targets.

        Args:
            input_ids: (B, L) tokens.
            target: (B, L) which to hide.
            choice: (B, L) a random word each.
            vocabulary: Mask and special ids.

        Returns:
            What the model sees, and the labels, (B, L) each; see ``Masking.apply``.
        """
        _, ordinary = special_and_ordinary(vocabulary)  # (ordinary ids,)
        # The upper half of a word decides what happens, the lower half which token is drawn.
        fate = uniform(choice)
        drawn = ordinary[((choice & np.uint64(0xFFFFFFFF)) * np.uint64(len(ordinary)) >> np.uint64(32)).astype(np.intp)]
        masked = np.where(target & (fate < self.mask_fraction), vocabulary.mask_id, input_ids)
        replaced = target & (fate >= self.mask_fraction) & (fate < self.mask_fraction + self.random_fraction)
        return np.where(replaced, drawn, masked), np.where(target, input_ids, IGNORED)


def uniform(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn the upper 32 bits into numbers in [0, 1).

    Args:
        words: (…) random words.

    Returns:
        (…) float64.
    """
    return (words >> np.uint64(32)) / 2.0**32


@lru_cache(maxsize=8)
def special_and_ordinary(vocabulary: Vocabulary) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Say of each of the V ids whether it is special, and list those that are not."""
    is_special = np.zeros(vocabulary.size, dtype=np.bool_)
    is_special[list(vocabulary.special_ids)] = True
    return is_special, np.flatnonzero(~is_special)
