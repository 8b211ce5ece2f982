"""Characters as tokens."""

import string
from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import require_kind, shown
from datamodules.tokenizers.base import Tokenizer
from datamodules.words import WordTable, table_by_letters
from gau_alpha.vocabulary import Vocabulary

_SPECIAL = ("[PAD]", "[UNK]", "[MASK]")
_CHARACTERS_AT_ONCE = 1 << 20  # a chromosome is one document of 10⁸ letters


class CharacterTokenizer(Tokenizer):
    """An alphabet, one id per character in the given order, then padding, unknown and mask.

    For DNA: ``characters: ACGTN``.

    Args:
        characters: The alphabet. Default: the printable ASCII characters. Every other character is unknown.

    Raises:
        ValueError: If there is no character, or one occurs twice, or it is no text.
    """

    def __init__(self, characters: str = string.printable) -> None:
        require_kind(str, characters=characters)
        twice = [character for character, count in Counter(characters).items() if count > 1]
        if not characters or twice:
            raise ValueError(
                f"characters={shown(characters)} must hold at least one character and none twice"
                + (f", but holds {shown(twice)} more than once" if twice else "")
                + ". For DNA write ACGTN."
            )
        self.characters = characters
        codes = np.array([ord(character) for character in characters], dtype=np.uint32)
        order = np.argsort(codes)
        self._codes, self._ids = codes[order], order.astype(np.int32)

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters and three special ids."""
        first = len(self.characters)
        ids = tuple(range(first, first + len(_SPECIAL)))
        return Vocabulary(size=first + len(_SPECIAL), mask_id=ids[2], pad_id=ids[0], special_ids=ids)

    @property
    def unknown_id(self) -> int:
        """The id of every character outside the alphabet."""
        return len(self.characters) + 1

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Look characters up."""
        return [self._encode(text) for text in texts]

    def offsets(self, text: str) -> NDArray[np.int64]:
        """Each token stands for one character."""
        places = np.arange(len(text))
        return np.stack([places, places + 1], axis=1)

    def decode(self, ids: Iterable[int]) -> str:
        """Write characters, special ones by name."""
        pieces = (*self.characters, *_SPECIAL)
        return "".join(pieces[token] for token in ids)

    def fingerprint(self) -> str:
        """Name the alphabet."""
        return f"CharacterTokenizer {self.characters}"

    def word_table(self) -> WordTable:
        """Words are runs of letters, digits and underscores."""
        return table_by_letters([*self.characters, *("" for _ in _SPECIAL)])

    def _encode(self, text: str) -> NDArray[np.int32]:
        ids = np.empty(len(text), dtype=np.int32)
        for start in range(0, len(text), _CHARACTERS_AT_ONCE):
            piece = text[start : start + _CHARACTERS_AT_ONCE]
            codes = np.frombuffer(piece.encode("utf-32-le"), dtype=np.uint32)
            place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
            known = self._codes[place] == codes
            ids[start : start + len(piece)] = np.where(known, self._ids[place], self.unknown_id)
        return ids
