"""Texts between special tokens: ``[CLS] text [SEP]``, ``[CLS] text [SEP] other [SEP]``.

L tokens of the whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.tokenizers import Tokenizer

Ids = NDArray[np.int64]
"""(tokens,) token ids."""


class Framed(NamedTuple):
    """A row.

    Attributes:
        input_ids: (L,) token ids.
        token_type_ids: (L,) which text a token belongs to, counted from 0.
        starts: Where each text starts.
        kept: How many tokens of each text are there.
        is_cut: Whether some are not.
    """

    input_ids: Ids
    token_type_ids: Ids
    starts: list[int]
    kept: list[int]
    is_cut: bool


class Frame:
    """Puts texts between the special tokens that a tokenizer has; those it lacks, as that of bytes, are left out.

    Args:
        tokenizer: Its special tokens are found by their names.
        first: What stands before all texts.
        behind: What stands behind each text.
    """

    def __init__(self, tokenizer: Tokenizer, first: str = "[CLS]", behind: str = "[SEP]") -> None:
        special = {tokenizer.decode([token]).strip(): token for token in tokenizer.vocabulary.special_ids}
        self._first = [special[first]] if first in special else []
        self._behind = [special[behind]] if behind in special else []

    def put(self, texts: Sequence[Ids], limit: int | None, may_cut: Sequence[bool] | None = None) -> Framed:
        """Make a row.

        Args:
            texts: (tokens,) ids of each text.
            limit: Most tokens of the row; the ends of the longest texts are cut until it is kept to. None: no limit.
            may_cut: Whether each text may be cut. None: all may.

        Returns:
            The row: (tokens,) ids, and what was cut.
        """
        kept = [len(text) for text in texts]
        if limit is not None:
            room = limit - len(self._first) - len(self._behind) * len(texts)
            kept = shortened(kept, room, [True] * len(texts) if may_cut is None else list(may_cut))
        pieces, types, starts, length = [np.array(self._first, dtype=np.int64)], [0] * len(self._first), [], 0
        length = len(self._first)
        for number, (text, count) in enumerate(zip(texts, kept, strict=True)):
            starts.append(length)
            pieces += [text[:count], np.array(self._behind, dtype=np.int64)]
            types += [number] * (count + len(self._behind))
            length += count + len(self._behind)
        is_cut = kept != [len(text) for text in texts]
        input_ids = np.concatenate(pieces).astype(np.int64)  # (L,)
        return Framed(input_ids, np.array(types, dtype=np.int64), starts, kept, is_cut)


def shortened(lengths: Sequence[int], room: int, may_cut: Sequence[bool]) -> list[int]:
    """Lower the longest of some lengths until they fit; of equal ones the last goes first.

    Args:
        lengths: Of the texts.
        room: What they may have together; where texts that may not be cut leave none, the others get 0.
        may_cut: Which may be lowered.
    """
    kept = list(lengths)
    cuttable = [number for number, may in enumerate(may_cut) if may]
    excess = sum(kept) - max(0, room)
    while excess > 0 and any(kept[number] for number in cuttable):
        longest = max(cuttable, key=lambda number: (kept[number], number))
        others = [kept[number] for number in cuttable if number != longest]
        step = min(excess, max(1, kept[longest] - max(others, default=0)), kept[longest])
        kept[longest] -= step
        excess -= step
    return kept
