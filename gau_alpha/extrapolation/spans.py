"""Which documents are measured at a length, which span of each, and the masked rows that are made of them.

Dimensions: D documents, L tokens of a span, B rows of a batch, T targets of a row, C tokens of a passage.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np

from gau_alpha.extrapolation.options import EvaluationOptions
from gau_alpha.extrapolation.protocols import CopyProbe, Protocol, philox
from gau_alpha.vocabulary import Vocabulary

_SPREAD_STREAM = 1  # beside stream 0, from which protocols draw
_OTHER_TEXT_STREAM = 3  # beside stream 2, from which a calibration draws queries


class EvaluationData(Interface):
    """What a data module offers that models can be evaluated on."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of its tokenizer."""
        ...

    train_length: int
    """Tokens per training row."""

    def evaluation_documents(self) -> Sequence[np.ndarray]:
        """Give whole documents, (tokens,) integers each, never truncated, in a fixed order."""
        ...


@dataclass(frozen=True)
class MaskedExample:
    """One row of a batch: a span of a document with some positions masked.

    Attributes:
        document: The document's place in the list of all documents.
        positions: (T,) int64, the masked positions.
        first: Whether it is the first over its document, the one in which attention is looked at.
        stratum: The stratum it was drawn from; None if its targets stand for themselves.
        stratum_size: How many positions the stratum has.
        beginning: (C,) int64, what stands at the beginning of the row in the place of the text there; None: the text.
        is_control: Whether it is what the same row without ``is_control`` is compared with, to see what that gains.
    """

    document: int
    positions: np.ndarray
    first: bool = True
    stratum: int | None = None
    stratum_size: int = 0
    beginning: np.ndarray | None = None
    is_control: bool = False


class EvaluationSpans:
    """Cuts documents to the evaluated lengths and masks them, the same way for every method.

    Args:
        documents: Indexable of 1-D integer arrays, whole documents in a fixed order.
        vocabulary: The ids of their tokenizer.
        train_length: Tokens per training row.
        options: Which lengths and documents, where in them, and the seed.
        protocol: Which positions are masked.
        left_out: Places of documents that take no part.

    Raises:
        ValueError: If no document is long enough.
    """

    def __init__(
        self,
        documents: Sequence[np.ndarray],
        vocabulary: Vocabulary,
        train_length: int,
        options: EvaluationOptions,
        protocol: Protocol,
        left_out: Collection[int] = (),
    ) -> None:
        self.documents = documents
        self.vocabulary = vocabulary
        self.train_length = train_length
        self.lengths = tuple(ratio * train_length for ratio in options.ratios)
        self.options = options
        self.protocol = protocol
        self._num_tokens = np.array([len(documents[index]) for index in range(len(documents))], np.int64)
        self._num_tokens[list(left_out)] = 0
        self._read: tuple[tuple[int, int], np.ndarray] | None = None
        longest = self._num_tokens.max(initial=0)
        least = self._least(self.lengths[0])
        if longest < least:
            calibrated = f" ({len(left_out)} are left out, because a method was calibrated on them)" if left_out else ""
            raise ValueError(
                f"No document is long enough for any of the lengths asked for: the longest of {len(documents)} has "
                f"{longest} tokens, {least} are needed{calibrated}. Ask for smaller length_ratios or give longer "
                f"documents."
            )
        if isinstance(protocol, CopyProbe):
            self._check_probe(protocol)

    def selected(self, length: int) -> np.ndarray:
        """(D,) places of the documents measured at ``length`` tokens, ascending."""
        chosen = np.flatnonzero(self._num_tokens >= self._least(length))[: self.options.max_documents]
        if self.options.max_tokens is None:
            return chosen
        if self._aligned:  # the same documents at every length: what the longest can afford
            length = self.lengths[-1]
        target_length, _ = self.target_span(length)
        return chosen[: max(1, self.options.max_tokens // (length * self.protocol.num_passes(target_length)))]

    def num_short(self, length: int) -> int:
        """How many documents are left out because they are too short."""
        return int(((self._num_tokens > 0) & (self._num_tokens < self._least(length))).sum())

    def num_repeated(self, length: int) -> int:
        """How many of the documents measured were brought to ``length`` tokens by repetition."""
        return int((self._num_tokens[self.selected(length)] < length).sum())

    def num_tokens(self, length: int) -> int:
        """How many tokens a model reads at ``length``, give or take positions that can't be masked."""
        target_length, _ = self.target_span(length)
        return len(self.selected(length)) * self.protocol.num_passes(target_length) * length

    def tokens(self, document: int, length: int) -> np.ndarray:
        """(L,) int64, the span of a document that is measured at ``length`` tokens; not to be written to."""
        # One document's rows follow each other, and reading a document may mean opening a file.
        if self._read is None or self._read[0] != (document, length):
            self._read = (document, length), self._cut(document, length)
        return self._read[1]

    def target_span(self, length: int) -> tuple[int, int]:
        """(length, offset) of the part of a span of ``length`` tokens in which targets lie."""
        if not self._aligned:
            return length, 0
        return self.lengths[0], self._start(0, self.lengths[0]) - self._start(0, length)

    def examples(self, length: int) -> list[MaskedExample]:
        """All rows at a length, the same for every method, in document order, those of a document together."""
        target_length, offset = self.target_span(length)
        examples = []
        for document in map(int, self.selected(length)):
            tokens = self.tokens(document, target_length)
            masked = self.protocol.targets(tokens, document, self.options.seed, self.vocabulary.special_ids)
            read, control = masked.rows if masked.rows is not None else (None, None)
            if masked.passage is not None:
                read = tokens[slice(*masked.passage)]
                control = self._other_text(document, length, len(read))
            if read is not None:
                for positions in masked.positions:  # attention is looked at in rows as they were written alone
                    examples.append(MaskedExample(document, positions, first=False, beginning=read))
                    examples.append(MaskedExample(document, positions, first=False, beginning=control, is_control=True))
                continue
            for number, positions in enumerate(masked.positions):
                stratum = None if masked.stratum is None else int(masked.stratum[number])
                size = 0 if stratum is None or masked.stratum_sizes is None else int(masked.stratum_sizes[stratum])
                examples.append(MaskedExample(document, positions + offset, number == 0, stratum, size))
        return examples

    def batch(self, examples: Sequence[MaskedExample], length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Builds a model's input.

        Args:
            examples: One per row.
            length: Tokens of a row.

        Returns:
            ``input_ids`` (B, L) with the mask token at masked positions, ``positions`` (B, T) of the targets, rows with
            fewer than T repeating their first, and ``labels`` (B, T) the masked tokens. All int64.
        """
        input_ids = np.stack([self.tokens(one.document, length) for one in examples])  # (B, L)
        for row, one in zip(input_ids, examples, strict=True):
            if one.beginning is not None:
                row[: len(one.beginning)] = one.beginning
        most = max(len(one.positions) for one in examples)
        positions = np.stack(
            [
                np.pad(one.positions, (0, most - len(one.positions)), constant_values=one.positions[0])
                for one in examples
            ]
        )  # (B, T)
        labels = np.take_along_axis(input_ids, positions, axis=1)  # (B, T), a copy
        np.put_along_axis(input_ids, positions, self.vocabulary.mask_id, axis=1)
        return input_ids, positions, labels

    def fingerprint(self) -> str:
        """SHA-256 of every document that is measured at any length, in order."""
        digest = hashlib.sha256()
        for document in sorted({int(index) for length in self.lengths for index in self.selected(length)}):
            digest.update(f"{document}:{document_fingerprint(self.documents[document])};".encode())
        if isinstance(self.protocol, CopyProbe):  # whose rows hold text of other documents
            for one in (one for length in self.lengths for one in self.examples(length)):
                assert one.beginning is not None, "a probe's rows begin with a passage"
                digest.update(document_fingerprint(one.beginning).encode())
        return digest.hexdigest()

    @property
    def _aligned(self) -> bool:
        return self.options.span_position == "aligned"

    def _least(self, length: int) -> int:
        """Tokens that a document must have to be measured at ``length``."""
        if self._aligned:
            return self.lengths[-1]
        return 1 if self.options.short_documents == "repeat" else length

    def _check_probe(self, probe: CopyProbe) -> None:
        """See that what is copied is what the probe copies.

        Raises:
            ValueError: If it is not, or there is no other text to compare with.
        """
        if self.options.short_documents == "repeat":
            raise ValueError(
                f"short_documents='repeat' makes rows whose text can be copied from anywhere; the protocol "
                f"{probe.name} measures what is gained from one passage. Take 'skip'."
            )
        if self._aligned:
            raise ValueError(
                f"span_position='aligned' keeps targets in place at every length; those of the protocol {probe.name} "
                f"lie as far into the row as it measures. Take 'first' or 'spread'."
            )
        enough = int((self._num_tokens >= probe.passage_length).sum())
        if enough < 2 and probe.name == "copy":
            raise ValueError(
                f"The protocol copy takes other text from another document, and {enough} of them has the "
                f"{probe.passage_length} tokens of a passage. Evaluate two documents or more."
            )

    def _other_text(self, document: int, length: int, size: int) -> np.ndarray:
        """(size,) tokens from anywhere in another document, drawn per document and length."""
        others = np.flatnonzero(self._num_tokens >= size)
        others = others[others != document]
        which, where = philox(self.options.seed, document, length, _OTHER_TEXT_STREAM).random_raw(2)
        other = int(others[int(which) % len(others)])
        start = int(where) % (int(self._num_tokens[other]) - size + 1)
        return np.asarray(self.documents[other][start : start + size], np.int64)

    def _cut(self, document: int, length: int) -> np.ndarray:
        whole = np.asarray(self.documents[document], np.int64)
        if len(whole) < length:
            return np.resize(whole, length)
        start = self._start(document, length)
        return whole[start : start + length]

    def _start(self, document: int, length: int) -> int:
        if self._aligned:
            return (self.lengths[-1] - length) // 2
        if self.options.span_position == "first":
            return 0
        room = int(self._num_tokens[document]) - length + 1
        return int(philox(self.options.seed, document, length, _SPREAD_STREAM).random_raw()) % room


def document_fingerprint(tokens: np.ndarray) -> str:
    """SHA-256 of a document's token ids.

    Args:
        tokens: (tokens,) ids, of any integer type.
    """
    return hashlib.sha256(np.ascontiguousarray(tokens, "<i8").tobytes()).hexdigest()
