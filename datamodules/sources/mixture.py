"""Several sources in stated shares."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np

from datamodules.arguments import LARGEST_SEED, are_weights, require_at_least, require_kind, shown
from datamodules.randomness import Purpose, random_words
from datamodules.sources.base import TextSource

_WORDS_AT_ONCE = 1024


class Mixture(TextSource):
    """Several sources, each with its share of the training rows.

    An epoch has as many rows as all sources together, of which each source has exactly its share: a small source with a
    large weight is gone through several times, one with a small weight in part, the rest of it in the following epochs.
    Which rows make up a batch is a pure function of seed and step. Each source has a cache of its own, so that weights
    can be changed without tokenising again. Validation has a share of each source's documents, by documents.

    Args:
        sources: The sources.
        weights: Their shares, positive; they need not sum to 1.
        seed: Seed of the order in which a stream interleaves the sources.

    Raises:
        ValueError: If sources and weights differ in number or are none, a weight is not positive, a source is a
            mixture or none at all, or the seed is out of range.
    """

    def __init__(self, sources: list[TextSource], weights: list[float], seed: int = 0) -> None:
        require_kind(list | tuple, sources=sources, weights=weights)
        if not sources or len(sources) != len(weights):
            raise ValueError(
                f"sources has {len(sources)} entries and weights={shown(weights)} has {len(weights)}. Give at least "
                "one source and one weight for each."
            )
        if not are_weights(weights):
            raise ValueError(
                f"weights={shown(weights)} must all be positive numbers. Leave out a source that has no share."
            )
        for number, source in enumerate(sources):
            require_kind(TextSource, **{f"sources[{number}]": source})
        require_at_least(0, LARGEST_SEED, seed=seed)
        if any(isinstance(source, Mixture) for source in sources):
            raise ValueError("sources holds a Mixture, but mixtures do not nest. List its sources with their weights.")
        self.sources = sources
        self.weights = [weight if isinstance(weight, int) else float(weight) for weight in weights]
        self.seed = int(seed)

    def documents(self) -> Iterator[str]:
        """Yield the documents of all sources, interleaved by weight; a source that is through drops out."""
        parts = [source.documents() for source in self.sources]
        weights = np.array(self.weights, dtype=np.float64)
        for number in self._draws():
            if not weights.any():
                return
            bounds = np.cumsum(weights) / weights.sum()
            # The rounded sum may end below a number that is almost 1, and the last ones may be through.
            part = min(int(np.searchsorted(bounds, number, side="right")), int(np.flatnonzero(weights)[-1]))
            document = next(parts[part], None)
            if document is None:
                weights[part] = 0.0
            else:
                yield document

    def fingerprint(self) -> str:
        """Hash the sources' fingerprints, the weights and the seed."""
        parts = [[source.fingerprint() for source in self.sources], self.weights, self.seed]
        return hashlib.sha256(f"Mixture {json.dumps(parts)}".encode()).hexdigest()

    def _draws(self) -> Iterator[float]:
        """Yield a number in [0, 1) for each document."""
        block = 0
        while True:
            words = random_words(self.seed, Purpose.MIXTURE, block, [0], _WORDS_AT_ONCE)[0]
            yield from ((words >> np.uint64(32)) / 2.0**32).tolist()
            block += 1
