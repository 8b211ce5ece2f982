"""Masking protocols: which positions are hidden in which pass over a document.

A protocol is drawn from a counter-based generator (Philox) keyed by the seed and counted by (document, length). So its
choice depends on nothing else: not on the method, the batch, the process or what was drawn before.
"""

from typing import Any
from typing import Protocol as Interface

import numpy as np


class Protocol(Interface):
    """What the engine needs to know of a protocol."""

    @property
    def name(self) -> str:
        """Stands in every row; rows with different names are never compared."""

    def num_passes(self, length: int) -> int:
        """Passes over a document of ``length`` tokens, for the estimate of the remaining time."""

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> np.ndarray:
        """The positions hidden in each pass.

        Args:
            tokens: (L,) The evaluated stretch of a document.
            document: The document's place in the list of all documents.
            seed: The evaluation's seed.
            special_ids: Ids that are never targets.

        Returns:
            (P, T) int64, ascending along T: T positions hidden at once in each of P passes. No pass for a document
            without an ordinary token.
        """

    def describe(self) -> dict[str, Any]:
        """Plain data that says how to build the protocol again."""


class MaskedTokens:
    """Protocol ``mlm``: a fixed share of a document's ordinary tokens is hidden at once, each behind the mask token.

    Unlike in training no target is left visible or replaced by a random token.

    Args:
        rate: Share of the ordinary tokens, rounded to whole tokens and at least one.

    Raises:
        ValueError: If the rate lies outside (0, 1].
    """

    name = "mlm"

    def __init__(self, rate: float = 0.15) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate={rate} must be above 0 and at most 1: the share of tokens that are hidden.")
        self.rate = rate

    def num_passes(self, length: int) -> int:
        """One, whatever the length."""
        return 1

    def targets(self, tokens: np.ndarray, document: int, seed: int, special_ids: tuple[int, ...]) -> np.ndarray:
        """(1, T) positions, see ``Protocol.targets``."""
        ordinary = np.flatnonzero(~np.isin(tokens, special_ids))
        if ordinary.size == 0:
            return np.empty((0, 0), np.int64)
        num_targets = max(1, round(self.rate * ordinary.size))
        # Raw words rather than Generator.choice: numpy promises their stream for ever.
        ranks = philox(seed, document, tokens.size).random_raw(ordinary.size)
        chosen = np.argsort(ranks, kind="stable")[:num_targets]
        return np.sort(ordinary[chosen])[None].astype(np.int64)  # (1, T)

    def describe(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``."""
        return {"class_path": f"{type(self).__module__}.{type(self).__qualname__}", "init_args": {"rate": self.rate}}


def philox(seed: int, document: int, length: int) -> np.random.Philox:
    """The stream of one (seed, document, length), independent of all others.

    The lowest word of the counter is left to count along the stream.
    """
    return np.random.Philox(key=[seed, 0], counter=[0, length, document, 0])
