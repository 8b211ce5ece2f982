"""The result of an evaluation: one row per (method, length)."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """What became of a row."""

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
class Row:
    """How one method does at one length. ``None`` where there is nothing to say.

    Attributes:
        method: Name of the method.
        length_ratio: ``length`` / train_length.
        length: Tokens per evaluated document.
        protocol: Which positions were hidden; rows of different protocols are not comparable.
        status: Whether the numbers below exist.
        loss: Nats per target token, over all targets.
        perplexity: exp(loss).
        accuracy: Share of targets whose most likely token is the hidden one.
        accuracy_low: Lower end of the 95 % interval (bootstrap over documents); likewise the other ``_low``.
        accuracy_high: Upper end.
        loss_low: As above.
        loss_high: As above.
        perplexity_low: As above.
        perplexity_high: As above.
        loss_sampling_low: Lower end of the 95 % interval of the loss that all positions of these documents would have
            given, where only some were drawn.
        loss_sampling_high: Upper end.
        accuracy_sampling_low: Likewise for the accuracy.
        accuracy_sampling_high: Upper end.
        attention_entropy: −Σ A ln A in nats, mean over layers and queries of the first pass over each document.
        effective_keys: exp(attention_entropy): as many keys, equally weighted, would have this entropy.
        near_share: Share of attention on keys at most train_length // 2 tokens away, on both sides; the same mean.
        baseline: Name of the method compared with. Empty in its own rows.
        loss_difference: Loss minus the baseline's on the same targets.
        loss_difference_low: As above, paired by document.
        loss_difference_high: As above.
        accuracy_difference: Likewise for the accuracy.
        accuracy_difference_low: As above.
        accuracy_difference_high: As above.
        group: Shared by rows of a length that differ only in the seed of training; empty where there is one.
        windows: Where in a document the evaluated stretch lies.
        num_targets: Hidden tokens.
        num_positions: Positions that they stand for: more, where positions were drawn.
        num_documents: Documents measured.
        num_short_documents: Documents left out because they are shorter than ``length``.
        num_repeated_documents: Documents brought to ``length`` by repetition, which can be copied.
        seconds: Time of the passes, the slowest process counting.
        tokens_per_second: Tokens read by the model, all processes together, per second.
        peak_memory_bytes: Largest of all processes: allocated on the GPU; on a Linux CPU what the whole process
            holds.
        kernel: How attention was computed.
        note: What a reader should know before quoting the row.
        layers: Plain data by layer: ``attention_entropy`` and ``near_share``, a number each; ``distance_share``, the
            share of attention at distances from ``distance_from[b]`` up to the next.
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
    loss_sampling_low: float | None = None
    loss_sampling_high: float | None = None
    accuracy_sampling_low: float | None = None
    accuracy_sampling_high: float | None = None
    attention_entropy: float | None = None
    effective_keys: float | None = None
    near_share: float | None = None
    baseline: str = ""
    loss_difference: float | None = None
    loss_difference_low: float | None = None
    loss_difference_high: float | None = None
    accuracy_difference: float | None = None
    accuracy_difference_low: float | None = None
    accuracy_difference_high: float | None = None
    group: str = ""
    windows: str = "first"
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

    def as_dict(self) -> dict[str, Any]:
        """Plain data, in the order of the attributes."""
        return asdict(self) | {"status": self.status.value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """The inverse of ``as_dict``."""
        return cls(**(values | {"status": Status(values["status"])}))
