"""Which documents are measured at a length, and which stretch of each.

Dimensions: D documents, L tokens of a stretch.
"""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from gau_alpha.extrapolation.protocols import Protocol, philox

WINDOWS = ("first", "spread", "aligned")
"""Where in a document the evaluated stretch may lie."""

SHORT_DOCUMENTS = ("skip", "repeat")
"""What may be done about documents shorter than a length."""

_SPREAD_STREAM = 1  # beside stream 0, from which protocols draw


class Stretches:
    """Cuts documents to the evaluated lengths, the same way for every method.

    Args:
        documents: Indexable of 1-D integer arrays, whole documents in a fixed order.
        lengths: Evaluated lengths in tokens, ascending.
        protocol: How many passes a stretch takes, for ``max_tokens``.
        windows: Where the stretch lies. ``first``: a document's first tokens. ``spread``: anywhere, drawn per document
            and length. ``aligned``: in the middle of a document's first ``lengths[-1]`` tokens, growing in both
            directions from one length to the next, with the targets of the shortest stretch at every length: the
            curve then shows what context does and nothing else. Only documents of at least ``lengths[-1]`` tokens take
            part.
        short_documents: ``skip`` leaves out documents shorter than the length, ``repeat`` repeats their text until they
            are long enough, as arXiv 2501.08570 does; what is repeated can be copied.
        max_documents: At each length only the first so many; all if None.
        max_tokens: At each length only the first so many that their passes read no more tokens, but at least one
            document; all if None. So short lengths use many documents and long ones stay affordable.
        seed: Of ``spread``.
        left_out: Places of documents that take no part.

    Raises:
        ValueError: If an argument is out of its range or no document is long enough.
    """

    def __init__(
        self,
        documents: Sequence[np.ndarray],
        lengths: Sequence[int],
        protocol: Protocol,
        *,
        windows: str = "first",
        short_documents: str = "skip",
        max_documents: int | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        left_out: Collection[int] = (),
    ) -> None:
        if windows not in WINDOWS:
            raise ValueError(f"windows={windows!r} is unknown; choose one of: {', '.join(WINDOWS)}.")
        if short_documents not in SHORT_DOCUMENTS:
            raise ValueError(f"short_documents={short_documents!r} is unknown; choose: {', '.join(SHORT_DOCUMENTS)}.")
        if windows == "aligned" and short_documents == "repeat":
            raise ValueError("windows='aligned' measures what real context does; repeated text is none. Skip it.")
        self.documents = documents
        self.lengths = tuple(lengths)
        self.protocol = protocol
        self.windows = windows
        self.short_documents = short_documents
        self.max_documents = max_documents
        self.max_tokens = max_tokens
        self.seed = seed
        self._num_tokens = np.array([len(documents[index]) for index in range(len(documents))], np.int64)
        self._num_tokens[list(left_out)] = 0
        self._read: tuple[tuple[int, int], np.ndarray] | None = None
        longest = self._num_tokens.max(initial=0)
        least = self._least(lengths[0])
        if longest < least:
            calibrated = f" ({len(left_out)} are left out, because a method was calibrated on them)" if left_out else ""
            raise ValueError(
                f"No document is long enough for any of the lengths asked for: the longest of {len(documents)} has "
                f"{longest} tokens, {least} are needed{calibrated}. Ask for smaller length_ratios or give longer "
                f"documents."
            )

    def selected(self, length: int) -> np.ndarray:
        """(D,) places of the documents measured at ``length`` tokens, ascending."""
        chosen = np.flatnonzero(self._num_tokens >= self._least(length))[: self.max_documents]
        if self.max_tokens is None:
            return chosen
        if self.windows == "aligned":  # the same documents at every length: what the longest can afford
            length = self.lengths[-1]
        target_length, _ = self.target_stretch(length)
        return chosen[: max(1, self.max_tokens // (length * self.protocol.num_passes(target_length)))]

    def num_short(self, length: int) -> int:
        """How many documents are left out because they are too short."""
        return int(((self._num_tokens > 0) & (self._num_tokens < self._least(length))).sum())

    def num_repeated(self, length: int) -> int:
        """How many of the documents measured were brought to ``length`` tokens by repetition."""
        return int((self._num_tokens[self.selected(length)] < length).sum())

    def tokens(self, document: int, length: int) -> np.ndarray:
        """(L,) int64, the stretch of a document that is measured at ``length`` tokens; not to be written to."""
        # One document's passes follow each other, and reading a document may mean opening a file.
        if self._read is None or self._read[0] != (document, length):
            self._read = (document, length), self._cut(document, length)
        return self._read[1]

    def _cut(self, document: int, length: int) -> np.ndarray:
        whole = np.asarray(self.documents[document], np.int64)
        if len(whole) < length:
            return np.resize(whole, length)
        start = self._start(document, length)
        return whole[start : start + length]

    def target_stretch(self, length: int) -> tuple[int, int]:
        """(length, offset) of the part of a stretch of ``length`` tokens in which targets lie."""
        if self.windows != "aligned":
            return length, 0
        return self.lengths[0], self._start(0, self.lengths[0]) - self._start(0, length)

    def fingerprint(self) -> str:
        """SHA-256 of every document that is measured at any length, in order."""
        digest = hashlib.sha256()
        for document in sorted({int(index) for length in self.lengths for index in self.selected(length)}):
            digest.update(f"{document}:{document_fingerprint(self.documents[document])};".encode())
        return digest.hexdigest()

    def _least(self, length: int) -> int:
        """Tokens that a document must have to be measured at ``length``."""
        if self.windows == "aligned":
            return self.lengths[-1]
        return 1 if self.short_documents == "repeat" else length

    def _start(self, document: int, length: int) -> int:
        if self.windows == "aligned":
            return (self.lengths[-1] - length) // 2
        if self.windows == "first":
            return 0
        room = int(self._num_tokens[document]) - length + 1
        return int(philox(self.seed, document, length, _SPREAD_STREAM).random_raw()) % room


def document_fingerprint(tokens: np.ndarray) -> str:
    """SHA-256 of a document's token ids.

    Args:
        tokens: (tokens,) ids, of any integer type.
    """
    return hashlib.sha256(np.ascontiguousarray(tokens, "<i8").tobytes()).hexdigest()
