"""The result of an evaluation: one per (method, length)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from gau_alpha.untrusted.registry import Registry, shown

_PLAIN = Registry({})  # no field of a result holds an object
_LARGEST = 2**53  # counts up to here are exact in any reader of JSON


MEASURES = {"copy": "gain", "recall": "accuracy"}
"""What a result is about under a protocol, the more the better; under others the loss, the less the better."""


class Status(StrEnum):
    """What became of a method at a length."""

    OK = "ok"
    NO_DOCUMENTS = "no documents"
    """No document is that long (or those that are have no token that could be masked)."""
    OUT_OF_MEMORY = "out of memory"
    """Neither one document at a time nor the smallest query block fits; longer lengths are not tried."""
    OUT_OF_TIME = "out of time"
    """The time budget did not allow for it; the same command, given again, goes on from here."""
    NOT_FINITE = "not finite"
    """A target's loss is NaN or infinite. Such a number is reported, never averaged."""


@dataclass(frozen=True)
class DocumentFigures:
    """What was measured of D documents for one method at one length.

    Attributes:
        document: (D,) places in the list of all documents.
        targets: (D,) masked tokens.
        positions: (D,) positions that they stand for.
        loss: (D,) nats, summed over the positions.
        correct: (D,) right predictions, likewise.
        control_loss: (D,) nats with other text in the place of the earlier passage; NaN but under protocol ``copy``.
    """

    document: np.ndarray
    targets: np.ndarray
    positions: np.ndarray
    loss: np.ndarray
    correct: np.ndarray
    control_loss: np.ndarray

    def summed(self, measure: str) -> np.ndarray:
        """(D,) what a measure is the mean of.

        Args:
            measure: ``loss``, ``gain`` or ``accuracy``.
        """
        return {"loss": self.loss, "gain": self.control_loss - self.loss, "accuracy": self.correct}[measure]


@dataclass(frozen=True)
class ExtrapolationResult:
    """What was measured for one method at one length. ``None`` where there is nothing to say.

    Attributes:
        method: Name of the method.
        length_ratio: ``length`` / train_length.
        length: Tokens per evaluated document.
        protocol: Which positions were masked; results of different protocols are not comparable.
        status: Whether the numbers below exist.
        loss: Nats per target token, over all targets.
        perplexity: exp(loss).
        accuracy: Share of targets whose most likely token is the masked one.
        accuracy_low: Lower end of the 95 % interval (bootstrap over documents); likewise the other ``_low``.
        accuracy_high: Upper end.
        loss_low: As above.
        loss_high: As above.
        perplexity_low: As above.
        perplexity_high: As above.
        distance: Under the protocol ``copy``: tokens between the two passages, start to start.
        gain: Likewise: the loss with other text in the place of the earlier passage minus ``loss``, in nats per target.
        gain_low: As above, paired by document.
        gain_high: As above.
        loss_sampling_low: Lower end of the 95 % interval of the loss that all positions of these documents would have
            given, where only some were drawn.
        loss_sampling_high: Upper end.
        accuracy_sampling_low: Likewise for the accuracy.
        accuracy_sampling_high: Upper end.
        attention_entropy: −Σ A ln A in nats, of weights over their sum, mean over layers and queries of the first pass
            over each document.
        effective_keys: exp(attention_entropy): as many keys, equally weighted, would have this entropy.
        near_share: Share of attention on keys at most train_length // 2 tokens away, on both sides; the same mean.
        sink_share: What the denominator of a ``SinkSoftmax`` gives to no key; the same mean. None for others.
        baseline: Name of the method compared with. Empty in its own results.
        loss_difference: Loss minus the baseline's on the same targets.
        loss_difference_low: As above, paired by document.
        loss_difference_high: As above.
        accuracy_difference: Likewise for the accuracy.
        accuracy_difference_low: As above.
        accuracy_difference_high: As above.
        gain_difference: Likewise for the gain.
        gain_difference_low: As above.
        gain_difference_high: As above.
        best_difference: The loss, or under a probe the gain or accuracy, minus that of the best method of this length,
            of those that no note speaks against. A report fills it in.
        best_difference_low: As above, paired by document; not corrected for how many methods are compared.
        best_difference_high: As above.
        group: Shared by results of a length that differ only in the seed of training; empty where there is one.
        tokenizer: What cut the text into the tokens that losses are per; those of different ones are not comparable.
            Empty if the caller does not know.
        span_position: Where in a document the evaluated span lies.
        num_targets: Masked tokens.
        num_positions: Positions that they stand for: more, where positions were drawn.
        num_documents: Documents measured.
        num_short_documents: Documents left out because they are shorter than ``length``.
        num_repeated_documents: Documents brought to ``length`` by repetition, which can be copied.
        seconds: Time of the passes, the slowest process counting.
        tokens_per_second: Tokens read by the model, all processes together, per second.
        peak_memory_bytes: Largest of all processes: allocated on the GPU; on a Linux CPU what the whole process
            holds.
        kernel: How attention was computed.
        note: What a reader should know before quoting the result.
        layers: Plain data by layer: ``attention_entropy``, ``near_share`` and ``sink_share``, a number each;
            ``distance_share``, the share of attention at distances from ``distance_from[b]`` up to the next.
        documents: What was measured of each document. In a file of its own, no part of ``as_dict``.
    """

    method: str
    length_ratio: int
    length: int
    protocol: str
    status: Status
    loss: float | None = None
    perplexity: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    perplexity_low: float | None = None
    perplexity_high: float | None = None
    distance: int | None = None
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    loss_sampling_low: float | None = None
    loss_sampling_high: float | None = None
    accuracy_sampling_low: float | None = None
    accuracy_sampling_high: float | None = None
    attention_entropy: float | None = None
    effective_keys: float | None = None
    near_share: float | None = None
    sink_share: float | None = None
    baseline: str = ""
    loss_difference: float | None = None
    loss_difference_low: float | None = None
    loss_difference_high: float | None = None
    accuracy_difference: float | None = None
    accuracy_difference_low: float | None = None
    accuracy_difference_high: float | None = None
    gain_difference: float | None = None
    gain_difference_low: float | None = None
    gain_difference_high: float | None = None
    best_difference: float | None = None
    best_difference_low: float | None = None
    best_difference_high: float | None = None
    group: str = ""
    tokenizer: str = ""
    span_position: str = "first"
    num_targets: int = 0
    num_positions: int = 0
    num_documents: int = 0
    num_short_documents: int = 0
    num_repeated_documents: int = 0
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    kernel: str = ""
    note: str = ""
    layers: dict[str, Any] | None = None
    documents: DocumentFigures | None = field(default=None, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the attributes."""
        values = asdict(replace(self, documents=None)) | {"status": self.status.value}
        del values["documents"]
        return values

    @classmethod
    def from_dict(cls, values: object, where: str = "row") -> "ExtrapolationResult":
        """The inverse of ``as_dict``, of data that anyone may have written.

        Args:
            values: Plain data; where there is no number, or an infinite one, None.
            where: Names it in messages.

        Raises:
            ValueError: If a field is unknown, missing or not what the class says, naming it.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{where} must be an object, got {shown(values)}.")
        others = {name: value for name, value in values.items() if name != "status"}
        known = _PLAIN.arguments(cls, others, where, left_out=("status", "documents"))
        if values.get("status") not in list(Status):
            choices = ", ".join(Status)
            raise ValueError(f"{where}.status must be one of: {choices}; got {shown(values.get('status'))}.")
        if known.get("layers") is not None:
            known["layers"] = _layers(known["layers"], f"{where}.layers")
        _check_numbers(known, where)
        if not 1 <= known["length_ratio"] <= known["length"]:
            raise ValueError(
                f"{where}.length_ratio must lie between 1 and the length, {known['length']}, got "
                f"{known['length_ratio']}."
            )
        return cls(**known, status=Status(values["status"]))


@dataclass(frozen=True)
class _Layers:
    """What ``ExtrapolationResult.layers`` holds in a file: K layers, N distances."""

    attention_entropy: list[float | None]  # (K,)
    near_share: list[float | None] = field(default_factory=list)  # (K,)
    sink_share: list[float | None] = field(default_factory=list)  # (K,)
    distance_from: list[int] = field(default_factory=list)  # (N,)
    distance_share: list[list[float | None]] = field(default_factory=list)  # (K, N)


def _layers(values: object, where: str) -> dict[str, Any]:
    known = _PLAIN.arguments(_Layers, values, where)
    depth, starts = len(known["attention_entropy"]), known.get("distance_from", [])
    for name in ("near_share", "sink_share", "distance_share"):
        if name in known and len(known[name]) != depth:
            raise ValueError(f"{where}.{name} must have {depth} entries, one per layer, got {len(known[name])}.")
    for shares in known.get("distance_share", []):
        if not shares or len(shares) != len(starts):
            raise ValueError(f"{where}.distance_share must have an entry per distance_from, got {len(shares)}.")
    if not depth:
        raise ValueError(f"{where}.attention_entropy is empty: there is no layer.")
    return known


def _check_numbers(value: object, where: str) -> None:
    """Whole numbers are counts, others finite."""
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            _check_numbers(one, f"{where}.{name}" if isinstance(name, str) else f"{where}[{name}]")
    elif isinstance(value, int) and not 0 <= value <= _LARGEST:
        raise ValueError(f"{where} must lie between 0 and {_LARGEST:,}, got {shown(value)}.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number, or null, got {value}.")
