"""Masking protocols: which positions are masked in which forward pass over a document.

A protocol is drawn from a counter-based generator (Philox) keyed by the seed and counted by (document, length). So its
choice depends on nothing else: not on the method, the batch, the process or what was drawn before.

Dimensions: L tokens, P passes, T targets of a pass, H strata, C tokens of a passage.
"""

from dataclasses import dataclass
from typing import Any, Literal
from typing import Protocol as Interface

import numpy as np

from gau_alpha.untrusted.limits import require_whole

_QUESTIONS = 5
_RECORD = 6  # tokens: ab=cd and a space
_LETTERS = [0, 1, 3, 4]  # those of them that are letters


@dataclass(frozen=True)
class MaskedPositions:
    """What is masked in the passes over a document, and what the targets stand for.

    Attributes:
        positions: (P, T) int64, ascending along T: T positions masked at once in each of P passes.
        stratum: (P,) int64, the stratum that a pass was drawn from; None if the targets stand for themselves.
        stratum_sizes: (H,) int64, how many positions each stratum has; None likewise.
        passage: (start, stop) of a passage of the span. Each pass is then made twice: with the passage standing at the
            beginning of the row, too, and with other text there. None: the span is read as it is.
        rows: (2, L) int64, likewise, what is read in the place of the span in both passes.
    """

    positions: np.ndarray
    stratum: np.ndarray | None = None
    stratum_sizes: np.ndarray | None = None
    passage: tuple[int, int] | None = None
    rows: np.ndarray | None = None

    @classmethod
    def nothing(cls) -> "MaskedPositions":
        """No pass: the document has no token that could be masked."""
        return cls(np.empty((0, 0), np.int64))


class Protocol(Interface):
    """What the engine needs to know of a protocol."""

    @property
    def name(self) -> str:
        """Stands in every row; rows with different names are never compared."""

    def num_passes(self, length: int) -> int:
        """Passes over a document of ``length`` tokens, for budgets and for the estimate of the remaining time."""

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> MaskedPositions:
        """The positions masked in each pass.

        Args:
            tokens: (L,) The evaluated span of a document.
            document: The document's place in the list of all documents.
            seed: The evaluation's seed.
            special_ids: Ids that are never targets.

        Returns:
            What to mask; no pass for a document without an ordinary token.
        """

    def describe(self) -> dict[str, Any]:
        """Plain data that says how to build the protocol again."""


class MaskedTokens(Protocol):
    """Protocol ``mlm``: a fixed share of a document's ordinary tokens is masked at once, each by the mask token.

    Unlike in training no target is left visible or replaced by a random token.

    Args:
        rate: Share of the ordinary tokens, rounded to whole tokens and at least one.

    Raises:
        ValueError: If the rate lies outside (0, 1].
    """

    name = "mlm"

    def __init__(self, rate: float = 0.15) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate} must be above 0 and at most 1: the share of tokens that are masked.")
        self.rate = rate

    def num_passes(self, length: int) -> int:
        """One, whatever the length."""
        return 1

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> MaskedPositions:
        """Draw the share of ordinary positions that a single pass masks.

        Returns:
            (1, T) positions, ascending.
        """
        ordinary = _ordinary(tokens, special_ids)
        if ordinary.size == 0:
            return MaskedPositions.nothing()
        num_targets = max(1, round(self.rate * ordinary.size))
        # Raw words rather than Generator.choice: numpy promises their stream for ever.
        ranks = philox(seed, document, tokens.size).random_raw(ordinary.size)
        chosen = np.argsort(ranks, kind="stable")[:num_targets]
        return MaskedPositions(np.sort(ordinary[chosen])[None])  # (1, T)

    def describe(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``."""
        return _describe(self, rate=self.rate)


class SingleMask(Protocol):
    """Protocol ``single-mask``: one position masked per pass, everything else visible (arXiv 2501.08570).

    With all positions the result is exact. With k of them it is an unbiased estimate of the exact result: the ordinary
    positions are cut, in reading order, into ⌊k/2⌋ strata of nearly equal size; in each, two positions (one stratum may
    give three) are drawn without replacement, and stand for as many as the stratum has. Two per stratum, not one,
    because the variance within a stratum, and with it the estimate's interval, can't be told from one draw (Cochran,
    "Sampling Techniques", 1977, chapter 5).

    Args:
        positions_per_document: k. None: all ordinary positions, as the paper does; so it is where a document has no
            more than k.

    Raises:
        ValueError: If k is below 1.
    """

    name = "single-mask"

    def __init__(self, positions_per_document: int | None = None) -> None:
        if positions_per_document is not None:
            require_whole("positions_per_document", positions_per_document, why="null is for all positions")
        self.positions_per_document = positions_per_document

    def num_passes(self, length: int) -> int:
        """One per position."""
        return length if self.positions_per_document is None else min(length, self.positions_per_document)

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> MaskedPositions:
        """List, or draw from every stratum, the positions that a pass each masks.

        Returns:
            (P, 1) positions in reading order, a pass each.
        """
        ordinary = _ordinary(tokens, special_ids)
        asked = self.positions_per_document
        if asked is None or asked >= ordinary.size:
            return MaskedPositions(ordinary[:, None])
        num_strata = max(1, asked // 2)
        draws = np.full(num_strata, asked // num_strata)
        draws[: asked % num_strata] += 1  # (H,)
        # Every stratum gets its share of the positions, so at least as many as are drawn from it.
        edges = np.concatenate([[0], draws.cumsum()]) * ordinary.size // asked  # (H + 1,)
        ranks = philox(seed, document, tokens.size).random_raw(ordinary.size)
        chosen = [
            start + np.sort(np.argsort(ranks[start:stop], kind="stable")[:count])
            for start, stop, count in zip(edges, edges[1:], draws, strict=False)
        ]
        return MaskedPositions(
            positions=ordinary[np.concatenate(chosen)][:, None],
            stratum=np.repeat(np.arange(num_strata), draws),
            stratum_sizes=np.diff(edges),
        )

    def describe(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``."""
        return _describe(self, positions_per_document=self.positions_per_document)


class CopyProbe(Protocol):
    """Protocol ``copy``: what a model gains from a passage that it has read so many tokens before.

    A passage stands where it was written and, a second time, at the beginning of the row, ``distance`` tokens before.
    Some tokens of the later one are masked; the earlier one is whole, so that they can be copied. The same row is read
    with other text in the place of the earlier one, and the loss without minus the loss with it is the gain. A model
    that sees nothing so far away gains nothing, however well it predicts.

    In a row of r · train_length tokens the distance is (r − 1) · train_length, and for r = 1 half of train_length.

    Args:
        train_length: Tokens per training row.
        passage_length: Tokens of the passage.
        num_hidden: How many of its ordinary tokens are masked; all, where it has no more.

    Raises:
        ValueError: If a number is out of range, or a training row does not hold the passage twice.
    """

    name = "copy"

    def __init__(self, train_length: int, passage_length: int = 32, num_hidden: int = 8) -> None:
        require_whole("passage_length", passage_length)
        require_whole("num_hidden", num_hidden, most=passage_length, why="of the passage's tokens")
        if train_length < 2 * passage_length:
            raise ValueError(
                f"The protocol copy has passages of {passage_length} tokens, and a training row must hold two: "
                f"train_length is {train_length}, and must be at least {2 * passage_length}. Leave this protocol out, "
                f"or hand the engine a CopyProbe with shorter passages."
            )
        self.train_length = train_length
        self.passage_length = passage_length
        self.num_hidden = num_hidden

    def num_passes(self, length: int) -> int:
        """Two: with the passage and with other text."""
        return 2

    def distance(self, length: int) -> int:
        """Tokens between the two passages, start to start, in a row of ``length``.

        Args:
            length: Tokens of the row, a multiple of ``train_length``.
        """
        return length - self.train_length if length > self.train_length else self.train_length // 2

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> MaskedPositions:
        """Draw what is masked of the later passage.

        Returns:
            (1, T) positions, ascending, and the later passage.
        """
        start = self.distance(tokens.size)
        passage = (start, start + self.passage_length)
        ordinary = _ordinary(tokens[slice(*passage)], special_ids) + start
        if ordinary.size == 0:
            return MaskedPositions.nothing()
        ranks = philox(seed, document, tokens.size).random_raw(ordinary.size)
        chosen = np.argsort(ranks, kind="stable")[: self.num_hidden]
        return MaskedPositions(np.sort(ordinary[chosen])[None], passage=passage)  # (1, T)

    def describe(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``."""
        sizes = {"passage_length": self.passage_length, "num_hidden": self.num_hidden}
        return _describe(self, train_length=self.train_length, **sizes)


class RecallProbe(CopyProbe):
    """Protocol ``recall``: does a model find, so many tokens before, the value that belongs to a key?

    For models trained on ``Synthetic`` texts of the task ``recall``, read byte by byte: records such as ``ab=cd`` and a
    space, six tokens each. A row is made of the letters of a held-out document: records with keys and values at random,
    and five questions, whose keys stand nowhere else but in five records at the beginning of the row, with the same
    values. The questions' values are masked. The control has other records at the beginning.

    Distances are those of ``copy``, down to a whole number of records.

    Args:
        train_length: Tokens per training row.

    Raises:
        ValueError: If a training row does not hold the five records twice.
    """

    name = "recall"

    def __init__(self, train_length: int) -> None:
        super().__init__(train_length, passage_length=_QUESTIONS * _RECORD)

    def distance(self, length: int) -> int:
        """Tokens from a record to its question, a multiple of 6.

        Args:
            length: Tokens of the row, a multiple of ``train_length``.
        """
        return super().distance(length) // _RECORD * _RECORD

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> MaskedPositions:
        """Make a row and its control of the document's letters.

        Returns:
            (1, T) positions of the questions' values, and both rows.

        Raises:
            ValueError: If the document does not consist of records.
        """
        records = tokens[: tokens.size // _RECORD * _RECORD].reshape(-1, _RECORD)  # (R, 6)
        letters = np.unique(records[:, _LETTERS])  # (A,)
        marks = np.unique(records[:, [2, 5]], axis=0)
        if len(marks) != 1 or len(letters) ** 2 <= _QUESTIONS or np.isin(marks, letters).any():
            raise ValueError(
                f"The protocol recall is for texts of datamodules.Synthetic(task='recall'), read by the ByteTokenizer "
                f"from their beginning (span_position 'first'), and document {document} is none. Leave this protocol "
                f"out."
            )
        num_keys, num_records = len(letters) ** 2, len(records)
        words = philox(seed, document, tokens.size).random_raw(num_keys + 2 * num_records)
        keys = np.argsort(words[:num_keys], kind="stable")  # the questions take the first
        drawn = words[num_keys:].reshape(2, num_records)
        key = keys[_QUESTIONS + (drawn[0] % np.uint64(num_keys - _QUESTIONS)).astype(np.int64)]  # (R,)
        value = (drawn[1] % np.uint64(num_keys)).astype(np.int64)  # (R,)
        first = np.arange(_QUESTIONS)
        questions = first + self.distance(tokens.size) // _RECORD
        key[questions] = keys[:_QUESTIONS]
        control = _with_records(tokens, letters, key, value)
        key[first], value[first] = key[questions], value[questions]
        row = _with_records(tokens, letters, key, value)
        positions = questions[:, None] * _RECORD + np.array([3, 4])  # (questions, 2)
        return MaskedPositions(positions.reshape(1, -1), rows=np.stack([row, control]))

    def describe(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``."""
        return _describe(self, train_length=self.train_length)


def _with_records(tokens: np.ndarray, letters: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    """(L,) with the letters of other records in the place of those there: pairs by their number, (R,) each."""
    row = tokens.copy()
    records = row[: len(key) * _RECORD].reshape(-1, _RECORD)  # (R, 6), a view
    numbers = np.stack([*np.divmod(key, len(letters)), *np.divmod(value, len(letters))], axis=1)  # (R, 4)
    records[:, _LETTERS] = letters[numbers]
    return row


PROTOCOLS = ("mlm", "single-mask", "copy", "recall")
"""Names of the protocols."""


def build_protocol(name: str, positions_per_document: int | Literal["all"] | None, train_length: int) -> Protocol:
    """Build a protocol by name.

    Args:
        name: One of ``PROTOCOLS``.
        positions_per_document: For single-mask: how many positions to draw from each document; all if None.
        train_length: Tokens per training row, the unit of distances for ``copy``.

    Raises:
        ValueError: If there is no protocol of that name, or a number is not for it.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {name!r}; choose one of: {', '.join(PROTOCOLS)}.")
    if name == "single-mask":
        return SingleMask(None if positions_per_document == "all" else positions_per_document)
    if positions_per_document is not None:
        raise ValueError(f"positions_per_document belongs to the protocol single-mask; {name} has its own.")
    if name == "mlm":
        return MaskedTokens()
    return CopyProbe(train_length) if name == "copy" else RecallProbe(train_length)


def philox(seed: int, document: int, length: int, stream: int = 0) -> np.random.Philox:
    """The stream of one (seed, document, length), independent of all others.

    The lowest word of the counter is left to count along the stream, the highest tells apart what is drawn.

    Args:
        seed: Of the evaluation.
        document: Place of the document.
        length: Tokens of the span.
        stream: Tells apart what is drawn.
    """
    return np.random.Philox(key=[seed, 0], counter=[0, length, document, stream])


def _ordinary(tokens: np.ndarray, special_ids: tuple[int, ...]) -> np.ndarray:
    """List the positions that may be masked, ascending, int64."""
    return np.flatnonzero(~np.isin(tokens, special_ids)).astype(np.int64)


def _describe(protocol: object, **init_args: Any) -> dict[str, Any]:
    cls = type(protocol)
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": init_args}
