"""Where words begin, read off token ids.

V ids of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_IDEOGRAPHS = ((0x3005, 0x3007), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
"""Han and kana: scripts without spaces between words."""
_IDEOGRAPH_BYTES = range(0xE3, 0xEA)
"""First bytes of these in UTF-8; almost nothing else begins so."""


@dataclass(frozen=True, eq=False)
class WordTable:
    """A token goes on with the word of the token before it if ``goes_on`` holds for it and ``is_open`` for that one.

    Attributes:
        goes_on: (V,) whether a token may be the later part of a word.
        is_open: (V,) whether the word of a token may go on behind it.
        ideographic: (V,) whether a token is, or begins, a character of a script without spaces.
        characters: (V,) the character that a token is; empty where it is more or less than one.
    """

    goes_on: NDArray[np.bool_]
    is_open: NDArray[np.bool_]
    ideographic: NDArray[np.bool_]
    characters: NDArray[np.str_]


def table_by_letters(pieces: Sequence[str | bytes]) -> WordTable:
    """Build the table of a tokenizer whose tokens are pieces of the text, spaces included.

    A word is a run of letters, digits and underscores; everything else is a word of its own, token by token.

    Args:
        pieces: What each of the V ids stands for; empty for special ids.
    """
    return WordTable(
        goes_on=np.array([_is_word(piece[:1]) for piece in pieces], dtype=np.bool_),
        is_open=np.array([_is_word(piece[-1:]) for piece in pieces], dtype=np.bool_),
        ideographic=np.array([_is_ideographic(piece) for piece in pieces], dtype=np.bool_),
        characters=_characters(pieces),
    )


def table_by_prefix(pieces: Sequence[str], prefix: str | None) -> WordTable:
    """Build the table of a tokenizer that marks tokens within a word, as WordPiece does with ``##``.

    Args:
        pieces: The V tokens; empty for special ids.
        prefix: The mark; None where every token is a word.
    """
    goes_on = [prefix is not None and piece.startswith(prefix) for piece in pieces]
    return WordTable(
        goes_on=np.array(goes_on, dtype=np.bool_),
        is_open=np.array([bool(piece) for piece in pieces], dtype=np.bool_),
        ideographic=np.array([_is_ideographic(piece) for piece in pieces], dtype=np.bool_),
        characters=_characters(pieces),
    )


def _characters(pieces: Sequence[str | bytes]) -> NDArray[np.str_]:
    return np.array([piece if isinstance(piece, str) and len(piece) == 1 else "" for piece in pieces], dtype="U1")


def _is_word(piece: str | bytes) -> bool:
    if isinstance(piece, bytes):
        # Bytes from 0x80 are parts of letters far more often than of anything else.
        return bool(piece) and (piece[0] >= 0x80 or _is_word(piece.decode("ascii")))
    return piece.isalnum() or piece == "_"


def _is_ideographic(piece: str | bytes) -> bool:
    if isinstance(piece, bytes):
        return any(byte in _IDEOGRAPH_BYTES for byte in piece)
    return any(low <= ord(letter) <= high for letter in piece for low, high in _IDEOGRAPHS)
