"""From text to token ids and back.

A new tokenizer is a subclass of ``Tokenizer``. Whatever the text says, it never encodes to the mask or the padding:
a corpus may well talk about "[MASK]".
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from gau_alpha.vocabulary import Vocabulary


class Tokenizer(ABC):
    """Text to token ids and back."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The ids, without the tokenizer."""

    @abstractmethod
    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Encode whole documents: nothing truncated, nothing padded, no special tokens added."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; mask and padding are written out by name."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash everything that decides what ``encode_batch`` returns."""


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

    def decode(self, ids: Iterable[int]) -> str:
        """Decode UTF-8; bytes that are none show as U+FFFD."""
        return b"".join(self._PIECES[token] for token in ids).decode(errors="replace")

    def fingerprint(self) -> str:
        """Name the encoding: there is only one."""
        return "ByteTokenizer utf-8"


class TokenizerFile(Tokenizer):
    """A tokenizer in the JSON format of the ``tokenizers`` library (``tokenizer.json`` on the Hugging Face hub).

    Truncation and padding set in the file are ignored: cutting into rows is the data module's job.

    Args:
        path: The JSON file.
        mask_token: Name of the token that hides what the model has to predict.
        pad_token: Name of the token that fills rows.
    """

    def __init__(self, path: str, mask_token: str = "[MASK]", pad_token: str = "[PAD]") -> None:
        self.path = path
        self.mask_token = mask_token
        self.pad_token = pad_token
        file = Path(path).expanduser()
        if not file.is_file():
            raise ValueError(
                f"path={path!r} is no file (looked from {Path.cwd()}). Give the path of a tokenizer.json, as saved by "
                "`tokenizers.Tokenizer.save`."
            )
        self._content = file.read_bytes()
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(self._content)
        except ValueError as error:
            raise ValueError(
                f"path={path!r} is no tokenizer of the `tokenizers` library ({error}). Give the path of a "
                "tokenizer.json, as saved by `tokenizers.Tokenizer.save`."
            ) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # "[MASK]" in the text is six letters, not the token.
        self._tokenizer.encode_special_tokens = True

        added = self._tokenizer.get_added_tokens_decoder()
        special = {details.content: token for token, details in added.items() if details.special}
        for argument, name in (("mask_token", mask_token), ("pad_token", pad_token)):
            token = self._tokenizer.token_to_id(name)
            if token is None:
                raise ValueError(
                    f"{argument}={name!r} is not in the vocabulary of {path!r}; its special tokens are "
                    f"{list(special)}. Set `{argument}` to one of them, or add the token to the file."
                )
            special[name] = token
        self._vocabulary = Vocabulary(
            size=max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1,
            mask_id=special[mask_token],
            pad_id=special[pad_token],
            special_ids=tuple(special.values()),
        )
        self._unknown_id = _unknown_id(self._tokenizer)
        # "Unknown" is the one special token that stands for text.
        never_in_text = {name: token for name, token in special.items() if token != self._unknown_id}
        self._never_in_text = list(never_in_text.values())
        # Longest first: of two names with the same beginning, the longer one is meant.
        names = sorted(never_in_text, key=len, reverse=True)
        self._special_names = re.compile("|".join(map(re.escape, names)))

    @property
    def vocabulary(self) -> Vocabulary:
        """Mask and padding by their names; special are all tokens that the file flags so."""
        return self._vocabulary

    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Encode in parallel."""
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        documents = [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]
        return [
            self._encode_cut(text) if np.isin(ids, self._never_in_text).any() else ids
            for text, ids in zip(texts, documents, strict=True)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode, special tokens written out."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)

    def fingerprint(self) -> str:
        """Hash the file and the names of the special tokens."""
        names = f"TokenizerFile {self.mask_token} {self.pad_token} "
        return hashlib.sha256(names.encode() + self._content).hexdigest()

    def _encode_cut(self, text: str) -> NDArray[np.int32]:
        """Encode a text whose letters the model itself, not the list of added tokens, reads as a special token.

        A model may have "[MASK]" as an ordinary entry (word-level models do). Cut after its first letter, the name
        can't be recognised any more.
        """
        cuts = [0, *(match.start() + 1 for match in self._special_names.finditer(text)), len(text)]
        pieces = [text[start:end] for start, end in pairwise(cuts)]
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


def _unknown_id(tokenizer: tokenizers.Tokenizer) -> int | None:
    # Only the JSON form says it the same way for every model: by name, or by number (Unigram).
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_token") is not None:
        return tokenizer.token_to_id(model["unk_token"])
    return model.get("unk_id")
