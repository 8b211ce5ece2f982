"""Words of scripts that put no spaces between them."""

import importlib
from abc import ABC, abstractmethod
from typing import Any

from datamodules.files import existing_file, read_lines

_LONGEST_WORD = 100


class Segmenter(ABC):
    """Cuts a run of characters into words."""

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """Return words that, put together, are the text."""


class WordList(Segmenter):
    """Words from a list, the longest first: at every place the longest listed word, else one character.

    Args:
        path: A text file (UTF-8) with a word per line; what follows a space (a frequency, say) is not read.

    Raises:
        ValueError: If there is no such file, or it holds no word of two characters or more, or one of more than 100.
    """

    def __init__(self, path: str) -> None:
        file = existing_file(path, "a text file with a word per line")
        lines = ((number, line.split(maxsplit=1)) for number, line, _ in read_lines(file, "utf-8"))
        words = {parts[0]: number for number, parts in lines if parts and len(parts[0]) > 1}
        # Every place of a text is compared with as many words as the longest has characters.
        for word, number in words.items():
            if len(word) > _LONGEST_WORD:
                raise ValueError(
                    f"{file}, line {number}: a word of {len(word)} characters, more than {_LONGEST_WORD}. Give a list "
                    "with a word per line, or leave that line out."
                )
        self.path = path
        self._words = frozenset(words)
        if not self._words:
            raise ValueError(f"path={path!r} holds no word of two characters or more. Give a list with words.")
        self._longest = max(map(len, self._words))

    def split(self, text: str) -> list[str]:
        """Match greedily from the left."""
        words: list[str] = []
        start = 0
        while start < len(text):
            stop = min(start + self._longest, len(text))
            while stop > start + 1 and text[start:stop] not in self._words:
                stop -= 1
            words.append(text[start:stop])
            start = stop
        return words


class Jieba(Segmenter):
    """The segmenter of the package ``jieba``, which has to be installed separately."""

    def __init__(self) -> None:
        _jieba()

    def split(self, text: str) -> list[str]:
        """Ask jieba."""
        return _jieba().lcut(text)


def _jieba() -> Any:
    try:
        return importlib.import_module("jieba")
    except ImportError:
        raise ValueError(
            "The segmenter Jieba needs the package jieba, which is not installed. Run `pip install jieba`, or use "
            "WordList with a list of words."
        ) from None
