"""What a tokenizer is."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from datamodules.words import WordTable
from gau_alpha.vocabulary import Vocabulary


class Tokenizer(ABC):
    """Text to token ids and back."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """The ids, without the tokenizer."""

    @abstractmethod
    def encode_batch(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Encode whole documents: nothing truncated, nothing padded, no special tokens added.

        Args:
            texts: The documents.

        Returns:
            (tokens,) ids of each.
        """

    def encode(self, text: str) -> list[int]:
        """Encode one text as ``encode_batch`` does: the ids of its tokens."""
        return self.encode_batch([text])[0].tolist()

    def offsets(self, text: str) -> NDArray[np.int64]:
        """Say which characters each token of ``encode_batch([text])`` stands for: (tokens, 2), first and behind last.

        Raises:
            ValueError: If the tokenizer does not tell.
        """
        raise ValueError(f"{type(self).__name__} does not tell which characters a token stands for.")

    def encode_between_masks(self, pieces: list[str]) -> list[NDArray[np.int32]]:
        """Encode the pieces of a text that masks stand between, as training has the tokens beside a mask.

        Args:
            pieces: Text before the first mask, between masks, and behind the last.

        Returns:
            (tokens,) ids of each piece.
        """
        return self.encode_batch(pieces)

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; mask and padding are written out by name."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash everything that decides what ``encode_batch`` returns."""

    @property
    def unknown_id(self) -> int | None:
        """The id that stands for text that has none of its own; None where every text has."""
        return None

    def word_table(self) -> WordTable:
        """Say which tokens go on with a word, for masking whole words.

        Raises:
            ValueError: If the tokens don't tell.
        """
        raise ValueError(
            f"{type(self).__name__} does not tell where words begin, which WholeWordMasking needs. Use TokenMasking or "
            "SpanMasking, or a tokenizer that tells."
        )
