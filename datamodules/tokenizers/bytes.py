"""Bytes as tokens."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from datamodules.tokenizers.base import Tokenizer
from datamodules.words import WordTable, table_by_letters
from gau_alpha.vocabulary import Vocabulary


class ByteTokenizer(Tokenizer):
    """The bytes of the text as UTF-8: 256 ids, then padding and mask. Needs no training and no file."""

    _PAD_ID = 256
    _MASK_ID = 257
    _PIECES = (*(bytes([value]) for value in range(256)), b"[PAD]", b"[MASK]")

    @property
    def vocabulary(self) -> Vocabulary:
        """258 ids, of which the last two are special."""
        return Vocabulary(size=len(self._PIECES), mask_id=self._MASK_ID, pad_id=self._PAD_ID)

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Encode as UTF-8."""
        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) for text in texts]

    def offsets(self, text: str) -> NDArray[np.int64]:
        """Each byte stands for the character that it is a part of."""
        sizes = [len(character.encode()) for character in text]
        places = np.repeat(np.arange(len(text)), np.array(sizes, dtype=np.int64))  # (bytes,)
        return np.stack([places, places + 1], axis=1)

    def decode(self, ids: Iterable[int]) -> str:
        """Decode UTF-8; bytes that are none show as U+FFFD."""
        return b"".join(self._PIECES[token] for token in ids).decode(errors="replace")

    def fingerprint(self) -> str:
        """Name the encoding: there is only one."""
        return "ByteTokenizer utf-8"

    def word_table(self) -> WordTable:
        """Words are runs of letters, digits and underscores."""
        return table_by_letters([*self._PIECES[:256], b"", b""])
