"""What an evaluation is set to: one object for the engine, the command ``extrapolate`` and the training callback."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gau_alpha.extrapolation.protocols import PROTOCOLS, build_protocol
from gau_alpha.untrusted.limits import require_whole

SPAN_POSITIONS = ("first", "spread", "aligned")
"""Where in a document the evaluated span may lie."""

SHORT_DOCUMENTS = ("skip", "repeat")
"""What may be done about documents shorter than a length."""

DEFAULT_RATIOS = (1, 2, 4, 8, 16, 32, 64)
"""Lengths that are evaluated unless others are named, as multiples of the training length."""

PROBED_RATIOS = (1, 2, 3, 7, 15, 31, 63)
"""Likewise for the protocols ``copy`` and ``recall``: distances of a half, 1, 2, 6, 14, 30 and 62 training lengths."""


_ANY_LENGTH = 2**20


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured, on which part of which documents, and in batches of which size.

    Args:
        length_ratios: Evaluated lengths as multiples of train_length; measured in ascending order. If null: 1, 2, 4, …
            64, and for the protocols copy and recall 1, 2, 3, 7, … 63.
        protocol: Which positions are masked: ``mlm``, 15 % at once; ``single-mask``, one per forward pass; ``copy``, 8
            of a passage that was read before, to see what a model gains from that; ``recall``, values whose keys were
            read before, for models trained on ``Synthetic`` texts of that task.
        positions_per_document: For single-mask: how many positions to draw from each document, or ``all``
            (the default), which is exact.
        span_position: Where in a document the evaluated span lies. ``first``: its first tokens. ``spread``: anywhere,
            drawn per document and length. ``aligned``: in the middle of a document's first tokens, as many as the
            longest length has, and with the targets of the shortest length at every length: the curve then shows what
            context does and nothing else. Documents shorter than the longest length take no part.
        short_documents: ``skip`` documents shorter than a length, or ``repeat`` their text until they are long enough,
            as arXiv 2501.08570 does; what is repeated can be copied.
        max_documents: At each length only the first so many documents that are long enough; all if null.
        max_tokens: At each length only the first so many documents that a method reads no more tokens, but at least
            one; all if null. Short lengths then use many documents, and long ones stay affordable.
        tokens_per_batch: Documents are batched up to this many tokens; a longer one is a batch of its own. On a CPU
            more is slower: glibc gives temporaries above 32 MiB back to the system each time. A GPU may like more.
        entropy: Whether to measure attention entropy.
        distances: Whether to measure how far attention reaches.
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of masked positions, spans and resamples.

    Attributes:
        ratios: The lengths, ascending.

    Raises:
        ValueError: If a number is out of its range, a choice is unknown, or two options contradict each other.
    """

    length_ratios: Sequence[int] | None = None
    protocol: str = "mlm"
    positions_per_document: int | Literal["all"] | None = None
    span_position: str = "first"
    short_documents: str = "skip"
    max_documents: int | None = None
    max_tokens: int | None = None
    tokens_per_batch: int = 8192
    entropy: bool = True
    distances: bool = True
    num_resamples: int = 1000
    seed: int = 0
    ratios: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        # Checked here; the engine builds it, for the train_length of its data.
        build_protocol(self.protocol, self.positions_per_document, train_length=_ANY_LENGTH)
        ratios = self.length_ratios
        if ratios is None:
            ratios = PROBED_RATIOS if self.protocol in ("copy", "recall") else DEFAULT_RATIOS
        require_ratios(ratios)
        object.__setattr__(self, "ratios", tuple(sorted(set(ratios))))
        for name, choices in (("span_position", SPAN_POSITIONS), ("short_documents", SHORT_DOCUMENTS)):
            if (choice := getattr(self, name)) not in choices:
                raise ValueError(f"{name}={choice!r} is unknown; choose one of: {', '.join(choices)}.")
        if self.span_position == "aligned" and self.short_documents == "repeat":
            raise ValueError("span_position='aligned' measures what real context does; repeated text is none. Skip it.")
        for name in ("max_documents", "max_tokens"):
            if (limit := getattr(self, name)) is not None:
                require_whole(name, limit)
        require_whole("tokens_per_batch", self.tokens_per_batch)
        require_whole("num_resamples", self.num_resamples)
        require_whole("seed", self.seed, least=0, most=2**64 - 1)


def protocol_names(protocol: Sequence[str] | str) -> list[str]:
    """List the protocols that are asked for.

    Args:
        protocol: A name, or several.

    Raises:
        ValueError: If there is none, or one is named twice.
    """
    names = [protocol] if isinstance(protocol, str) else list(protocol) if isinstance(protocol, Sequence) else []
    if not names or not all(isinstance(one, str) for one in names) or len(set(names)) < len(names):
        raise ValueError(f"protocol must name one or more of {', '.join(PROTOCOLS)}, each once, got {protocol!r}.")
    return names


def require_ratios(length_ratios: Sequence[int]) -> None:
    """Check lengths that are given as multiples of the training length.

    Args:
        length_ratios: What was given.

    Raises:
        ValueError: If it holds anything else than whole numbers of at least 1, or nothing.
    """
    if isinstance(length_ratios, str) or not isinstance(length_ratios, Sequence) or not length_ratios:
        raise ValueError(f"length_ratios must be one or more whole numbers of at least 1, got {length_ratios!r}.")
    for ratio in length_ratios:
        require_whole("Each of length_ratios", ratio)
