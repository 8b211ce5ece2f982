"""What all tokenizers of the ``tokenizers`` library share."""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel

from datamodules.arguments import require_kind, shown
from datamodules.files import refusing
from datamodules.tokenizers.base import Tokenizer
from datamodules.words import WordTable, table_by_letters, table_by_prefix
from gau_alpha.vocabulary import Vocabulary

_LETTERS = ("a\n", "a", "1", ".")  # few tokenizers make one token of such and of the text behind it
_IDS_PER_TOKEN, _SPARE_IDS = 4, 1000
"""An id without a token costs a row of embeddings: how many there may be."""


def refusing_library(path: str) -> AbstractContextManager[None]:
    """Name the file in whatever the ``tokenizers`` library raises over it; some files make it panic, at any call."""
    return refusing(
        f"path={shown(path)} is no tokenizer of the `tokenizers` library",
        "Give the path of a tokenizer.json, as saved by `tokenizers.Tokenizer.save`, or of a whole vocab.txt.",
    )


class LibraryTokenizer(Tokenizer):
    """A tokenizer of the ``tokenizers`` library, kept from truncating, padding, and making special tokens of text.

    Args:
        tokenizer: The library's tokenizer; it is changed.
        path: Where it comes from, for messages.
        special: Names and ids of tokens that are no text, besides those that the tokenizer flags as special.
        mask_token: Name of the token that hides what the model has to predict.
        pad_token: Name of the token that fills rows.

    Raises:
        ValueError: If mask or padding are not in the vocabulary, its ids are far more than its tokens, or the library
            makes nothing of it.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, path: str, special: Mapping[str, int], mask_token: str, pad_token: str
    ) -> None:
        self.path = path
        self.mask_token = mask_token
        self.pad_token = pad_token
        self._tokenizer = tokenizer
        require_kind(str, mask_token=mask_token, pad_token=pad_token)
        with refusing_library(path):
            tokenizer.no_truncation()
            tokenizer.no_padding()
            # "[MASK]" in the text is six letters, not the token.
            tokenizer.encode_special_tokens = True
            added = tokenizer.get_added_tokens_decoder()
            vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        special = {**special, **{details.content: token for token, details in added.items() if details.special}}
        for argument, name in (("mask_token", mask_token), ("pad_token", pad_token)):
            token = vocabulary.get(name)
            if token is None:
                raise ValueError(
                    f"{argument}={shown(name)} is not in the vocabulary of {path!r}; its special tokens are "
                    f"{shown(list(special))}. Set `{argument}` to one of them, or add the token to the file."
                )
            special[name] = token
        used = set(vocabulary.values())
        size = max(used) + 1
        if size > _IDS_PER_TOKEN * len(used) + _SPARE_IDS:
            raise ValueError(
                f"path={shown(path)} has {len(used)} tokens, but ids up to {size - 1}: the model would have a row of "
                "embeddings for each. Number the tokens from 0 without such gaps."
            )
        with refusing_library(path):  # behind the check: it counts up to the largest id
            # Only the JSON form says it the same way for every kind of model.
            self._described: dict[str, Any] = json.loads(tokenizer.to_str())
        self._vocabulary = Vocabulary(
            size=size,
            mask_id=special[mask_token],
            pad_id=special[pad_token],
            # An id that no token has is an embedding row that must never be drawn.
            special_ids=(*special.values(), *(set(range(size)) - used)),
        )
        self._model: dict[str, Any] = self._described["model"]
        self._unknown_id = _unknown_id(tokenizer, self._model)
        # "Unknown" is the one special token that stands for text.
        never_in_text = {name: token for name, token in special.items() if token != self._unknown_id}
        self._never_in_text = list(never_in_text.values())
        # Longest first: of two names with the same beginning, the longer one is meant.
        names = sorted(never_in_text, key=len, reverse=True)
        self._special_names = re.compile("|".join(map(re.escape, names)))

    @property
    def vocabulary(self) -> Vocabulary:
        """Mask and padding by their names; special are all tokens that are flagged so, and ids without a token."""
        return self._vocabulary

    @property
    def unknown_id(self) -> int | None:
        """The model's unknown token, if it has one."""
        return self._unknown_id

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Encode in parallel."""
        with refusing_library(self.path):
            encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        documents = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return [
            self._encode_cut(text) if np.isin(ids, self._never_in_text).any() else ids
            for text, ids in zip(texts, documents, strict=True)
        ]

    def offsets(self, text: str) -> NDArray[np.int64]:
        """Read from the library's encoding, cut where ``encode_batch`` cuts."""
        pieces = [(0, text)]
        with refusing_library(self.path):
            whole = self._tokenizer.encode(text, add_special_tokens=False)
            if np.isin(whole.ids, self._never_in_text).any():
                pieces = self._cut(text)
            found = [
                (start + first, start + stop)
                for start, piece in pieces
                for first, stop in self._tokenizer.encode(piece, add_special_tokens=False).offsets
            ]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def encode_between_masks(self, pieces: list[str]) -> list[NDArray[np.int32]]:
        """Encode pieces as parts of one text, without the spaces that belong to the masked tokens.

        Where a token carries the space before it, as those of byte-level and SentencePiece tokenizers do, the space
        before a mask is hidden with the token, and text right behind a mask begins no word. A mask that the
        tokenizer's file lets swallow spaces (``lstrip``, ``rstrip``) does so everywhere.
        """
        with refusing_library(self.path):
            added = self._tokenizer.get_added_tokens_decoder().get(self._vocabulary.mask_id)
        # A byte tokenizer has the mark of a space too, but in no token with letters.
        carries_space = any(len(piece) > 1 and piece[0] in "Ġ▁" for piece in self._tokenizer.get_vocab())
        last = len(pieces) - 1
        found = []
        for number, piece in enumerate(pieces):
            text = piece
            if number < last and (carries_space or (added is not None and added.lstrip)):
                text = text.rstrip()
            if number > 0 and added is not None and added.rstrip:
                text = text.lstrip()
            found.append(self._behind_letter(text) if number > 0 and carries_space else self.encode_batch([text])[0])
        return found

    def _behind_letter(self, text: str) -> NDArray[np.int32]:
        """Encode a text as what comes behind a letter that no token shares with it, and leave the letter out."""
        if not text:
            return np.empty(0, dtype=np.int32)
        for letter in _LETTERS:
            (ids,) = self.encode_batch([letter + text])
            offsets = self.offsets(letter + text)  # (tokens, 2)
            behind = offsets[:, 0] >= len(letter)
            if len(ids) == len(offsets) and (offsets[~behind, 1] <= len(letter)).all():
                return ids[behind]
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode, special tokens written out."""
        numbers = [int(token) for token in ids]
        with refusing_library(self.path):
            return self._tokenizer.decode(numbers, skip_special_tokens=False)

    def word_table(self) -> WordTable:
        """Read from the marks that tokens carry: ``##``, or the space before them.

        Raises:
            ValueError: If tokens carry no marks.
        """
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        special = set(self._vocabulary.special_ids)
        pieces = [""] * self._vocabulary.size
        for piece, token in vocabulary.items():
            if token not in special:
                pieces[token] = piece
        kind = self._model["type"]
        if kind == "WordPiece":
            return table_by_prefix(pieces, self._model["continuing_subword_prefix"])
        if kind == "WordLevel":
            return table_by_prefix(pieces, None)
        steps = json.dumps([self._described["pre_tokenizer"], self._described["decoder"]])
        if '"ByteLevel"' in steps:
            letters = {letter: byte for byte, letter in enumerate(_byte_letters())}
            # A token that was added by hand is written in plain letters, some of which stand for no byte.
            return table_by_letters(
                [
                    bytes(letters[letter] for letter in piece) if letters.keys() >= set(piece) else piece
                    for piece in pieces
                ]
            )
        if '"Metaspace"' in steps:
            return table_by_letters([piece.replace("▁", " ") for piece in pieces])
        return super().word_table()

    def _encode_cut(self, text: str) -> NDArray[np.int32]:
        """Encode a text whose letters the model itself, not the list of added tokens, reads as a special token.

        A model may have "[MASK]" as an ordinary entry (word-level models do). Cut after its first letter, the name
        can't be recognised any more.
        """
        pieces = [piece for _, piece in self._cut(text)]
        with refusing_library(self.path):
            encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        ids = np.concatenate([np.array(encoding.ids, dtype=np.int32) for encoding in encodings])
        special = np.isin(ids, self._never_in_text)
        if special.any():
            if self._unknown_id is None:
                name = self._tokenizer.id_to_token(int(ids[special][0]))
                raise ValueError(
                    f"path={self.path!r} encodes ordinary text as its special token {name!r} and has no unknown token "
                    "to put in its place. Use a tokenizer whose special tokens are no text."
                )
            ids[special] = self._unknown_id
        return ids

    def _cut(self, text: str) -> list[tuple[int, str]]:
        """Cut a text behind the first letter of everything that is written like a special token: where, and what."""
        cuts = [0, *(match.start() + 1 for match in self._special_names.finditer(text)), len(text)]
        return [(start, text[start:end]) for start, end in pairwise(cuts)]


def _unknown_id(tokenizer: tokenizers.Tokenizer, model: Mapping[str, Any]) -> int | None:
    # by name, or by number (Unigram)
    if model.get("unk_token") is not None:
        return tokenizer.token_to_id(model["unk_token"])
    return model.get("unk_id")


def _byte_letters() -> list[str]:
    """List the letters that byte-level models write for the bytes 0, 1, …, 255.

    Printable bytes stand for themselves, the others for the letters from 256 on, in order; the library keeps the table
    to itself but encodes with it.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    letters = [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
    assert set(letters) == set(ByteLevel.alphabet())
    return letters
