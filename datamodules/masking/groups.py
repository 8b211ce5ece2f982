"""Hiding tokens by groups: whole words, spans.

B rows of a batch, L tokens of a row, V ids of the vocabulary, G groups of a row.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.masking.base import RateMasking, special_and_ordinary, uniform
from datamodules.randomness import Purpose, random_words
from gau_alpha.vocabulary import Vocabulary


@dataclass(frozen=True)
class GroupMasking(RateMasking):
    """A rule that hides groups of neighbouring tokens together.

    A row of n ordinary tokens gets rate·n targets, rounded up or down at random. Groups are taken in random order as
    long as they fit into that number; if something remains for which no group is small enough, one more group is taken
    with the probability that makes the rate exact on average. So the rate is kept closely, and short groups are hidden
    somewhat more often than long ones, since they also fit at the end; the longer the row, the less.
    """

    @abstractmethod
    def begins(
        self,
        input_ids: NDArray[np.int64],
        joined: NDArray[np.bool_],
        sample_ids: NDArray[np.int64],
        seed: int,
        epoch: int,
    ) -> NDArray[np.bool_]:
        """Say where groups begin.

        Args:
            input_ids: (B, L) tokens.
            joined: (B, L) whether a token and the one before it are both ordinary and of one document: only there a
                group may go on.
            sample_ids: (B,) what tells the rows apart.
            seed: Seed of the run.
            epoch: Epoch.

        Returns:
            (B, L) whether a group begins at a token, where ``joined``; elsewhere one begins anyway.
        """

    def fit(self, size: int, room: int) -> int:
        """Say how many tokens of a group are taken when there is room for fewer: all or none.

        Args:
            size: Tokens of the group.
            room: Tokens that may still be taken, fewer than ``size``.
        """
        return 0

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
        """Hide groups of tokens of a batch; see ``Masking.apply``."""
        length = input_ids.shape[1]
        is_special, _ = special_and_ordinary(vocabulary)  # (V,)
        words = random_words(seed, Purpose.MASKING, epoch, sample_ids, 1 + 2 * length)  # (B, 1 + 2L)
        order, choice = words[:, 1::2], words[:, 2::2]  # (B, L), (B, L)

        candidate = (attention_mask != 0) & ~is_special[input_ids]  # (B, L)
        joined = candidate.copy()
        joined[:, 0] = False
        joined[:, 1:] &= candidate[:, :-1]
        if segment_ids is not None:
            joined[:, 1:] &= segment_ids[:, 1:] == segment_ids[:, :-1]
        begin = candidate & (~joined | self.begins(input_ids, joined, sample_ids, seed, epoch))  # (B, L)

        num_targets = self.num_targets(candidate.sum(axis=1), words[:, 0])  # (B,)
        # the lower half of the word whose upper half has rounded the number
        chance = uniform(words[:, 0] << np.uint64(32))  # (B,)
        target = np.zeros_like(candidate)
        for row in range(len(input_ids)):
            start = np.flatnonzero(begin[row])  # (G,)
            # A group ends where the next begins or candidates end.
            group = np.cumsum(begin[row])[candidate[row]] - 1
            size = np.bincount(group, minlength=len(start))  # (G,)
            # The word of its first token puts a group into order: padding a row further does not change it.
            for chosen, taken in self._choose(size, np.argsort(order[row, start]), int(num_targets[row]), chance[row]):
                target[row, start[chosen] : start[chosen] + taken] = True
        return self.hide(input_ids, target, choice, vocabulary)

    def _choose(
        self, size: NDArray[np.int64], order: NDArray[np.intp], room: int, chance: float
    ) -> list[tuple[int, int]]:
        """Choose groups: their numbers, and how many tokens are taken of each."""
        chosen: list[tuple[int, int]] = []
        spare: int | None = None
        for number in order.tolist():
            if room == 0:
                break
            one = int(size[number])
            taken = one if one <= room else self.fit(one, room)
            if taken:
                chosen.append((number, taken))
                room -= taken
            elif spare is None:
                spare = number
        if room and spare is not None and chance < room / size[spare]:
            chosen.append((spare, int(size[spare])))
        return chosen
