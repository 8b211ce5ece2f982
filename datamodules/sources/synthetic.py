"""Texts whose answers lie a known distance away: what a model can see, measured without a corpus."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import LARGEST_SEED, LONGEST_ROW, require_at_least, shown
from datamodules.randomness import Purpose, random_words
from datamodules.sources.base import TextSource

TASKS = ("copy", "recall")
"""What a synthetic text can be about."""

_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
_RECORD = len("ab=cd ")


class Synthetic(TextSource):
    """Random texts in which what is hidden can be read elsewhere, ``distance`` characters away, and nowhere else.

    ``copy``: random letters that repeat with the period ``distance``. ``recall``: records such as ``ab=cd``, key and
    value; after the first ``distance`` characters, half of the records repeat the one that stands ``distance``
    characters before, the others are new: the key says whether there is an answer to look for.

    Args:
        task: ``copy`` or ``recall``.
        distance: Characters from a question to its answer; for ``recall`` a multiple of 6, the length of a record.
        length: Characters per document, more than ``distance``, at most ten million.
        num_documents: Number of documents.
        seed: Seed of the letters.

    Raises:
        ValueError: If a number is out of range or the task is unknown.
    """

    def __init__(
        self, task: str = "copy", distance: int = 24, length: int = 96, num_documents: int = 1000, seed: int = 0
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task={shown(task)} must be one of {list(TASKS)}.")
        require_at_least(1, LONGEST_ROW, length=length)
        require_at_least(1, num_documents=num_documents)
        require_at_least(0, LARGEST_SEED, seed=seed)
        require_at_least(1, distance=distance)
        if task == "recall" and distance % _RECORD:
            raise ValueError(
                f"distance={distance} must be, for 'recall', a multiple of {_RECORD}, the length of a record. Choose "
                "such a number."
            )
        if length <= distance:
            raise ValueError(
                f"length={length} must be above distance={distance}, else no answer fits into a document. Raise it."
            )
        self.task = task
        self.distance = distance
        self.length = length
        self.num_documents = num_documents
        self.seed = seed

    def documents(self) -> Iterator[str]:
        """Yield the texts."""
        return self.every(0, 1)

    def every(self, first: int, step: int) -> Iterator[str]:
        """Make only the documents that are asked for: each is a function of its number."""
        make = self._copy if self.task == "copy" else self._recall
        return (make(number) for number in range(first, self.num_documents, step))

    def fingerprint(self) -> str:
        """Name the options."""
        return f"Synthetic {self.task} {self.distance} {self.length} {self.num_documents} {self.seed}"

    def num_documents_hint(self) -> int | None:
        """Count the documents."""
        return self.num_documents

    def _words(self, document: int, count: int) -> NDArray[np.uint64]:
        return random_words(self.seed, Purpose.SYNTHETIC, 0, [document], count)[0]

    def _copy(self, document: int) -> str:
        period = "".join(_letters(self._words(document, self.distance)))
        return (period * -(-self.length // self.distance))[: self.length]

    def _recall(self, document: int) -> str:
        num_records = -(-self.length // _RECORD)
        words = self._words(document, 5 * num_records).reshape(num_records, 5)
        letters, is_repeat = _letters(words[:, :4]), words[:, 4] % 2 == 1  # (records, 4), (records,)
        before = self.distance // _RECORD
        records: list[str] = []
        for number, (a, b, c, d) in enumerate(letters):
            new = f"{a}{b}={c}{d} "
            old = records[number - before] if number >= before else ""
            # A new record whose key is that of the old one by chance would make a question with a wrong answer.
            records.append(old if old and (is_repeat[number] or old[:2] == new[:2]) else new)
        return "".join(records)[: self.length]


def _letters(words: NDArray[np.uint64]) -> NDArray[np.str_]:
    return _LETTERS[(words % np.uint64(len(_LETTERS))).astype(np.intp)]
