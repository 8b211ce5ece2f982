"""Which documents are held out for validation: a function of each document's own text, and of nothing else.

A text is hashed, hash and seed give it a place between 0 and 1, and it is held out if that place lies below the
fraction asked for. So adding, reordering or repeating documents changes no other document's side, copies share theirs,
and what is held out at a smaller fraction is part of what is held out at a larger one.

D documents of a source.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import LARGEST_SEED, is_number, require_at_least, shown

SPLIT_SEED = 0
"""The default everywhere, whatever the seed of training: so that runs share what they hold out."""

VALIDATION_FRACTION = 0.1
"""The default everywhere."""

_WHOLE = 2.0**64


def text_hash(text: str) -> int:
    """Hash a document: 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Split:
    """The rule by which documents are held out.

    Args:
        seed: Another seed holds out other documents.
        fraction: Share of the documents that is held out, in (0, 1), as far as chance allows.

    Raises:
        ValueError: If one is out of range.
    """

    seed: int = SPLIT_SEED
    fraction: float = VALIDATION_FRACTION

    def __post_init__(self) -> None:
        require_at_least(0, LARGEST_SEED, split_seed=self.seed)
        if not is_number(self.fraction) or not 0 < self.fraction < 1:
            raise ValueError(
                f"validation_fraction={shown(self.fraction)} must lie between 0 and 1, both excluded: training "
                "and validation each need documents. 0.1 is usual."
            )

    def describe(self) -> dict[str, Any]:
        """Say the rule as plain data."""
        return {"by": "text", "split_seed": int(self.seed), "validation_fraction": float(self.fraction)}

    def places(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Give hashes their places.

        Args:
            hashes: (D,) of the texts.

        Returns:
            (D,) in [0, 2⁶⁴), of uniform distribution; the same hash has the same place.
        """
        return _mixed(hashes ^ _mixed(np.array([self.seed], dtype=np.uint64)))

    def held_out(self, places: Sequence[NDArray[np.uint64]]) -> list[NDArray[np.bool_]]:
        """Say which documents are held out.

        Every source gets at least one document on either side: where chance leaves a side without one, the document
        of the smallest place is held out, or that of the largest is trained on; its copies with it, in every source.

        Args:
            places: (D,) of each source's documents that hold text.

        Returns:
            (D,) for each source, True for those held out.

        Raises:
            ValueError: If a source has not two documents that differ.
        """
        below = [self._are_below(some) for some in places]
        to_validation, to_training = [], []
        for some, out in zip(places, below, strict=True):
            if len(np.unique(some)) < 2:
                raise ValueError(
                    f"The corpus has {len(np.unique(some))} document that is not empty and no copy of another, but "
                    "training and validation each need one of their own. Split the text into several files or lines."
                )
            if not out.any():
                to_validation.append(some.min())
            elif out.all():
                to_training.append(some.max())
        sides = [
            (out | np.isin(some, to_validation)) & ~np.isin(some, to_training)
            for some, out in zip(places, below, strict=True)
        ]
        if any(out.all() or not out.any() for out in sides):
            raise ValueError(
                "The sources share so many documents that one of them is left without any for training or validation. "
                "Leave out the source that repeats the others, or choose another split_seed."
            )
        return sides

    def is_below(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Say which texts' places lie below the fraction, whatever the rest of the corpus: (texts,)."""
        return self._are_below(self.places(np.array([text_hash(text) for text in texts], dtype=np.uint64)))

    def _are_below(self, places: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return places / _WHOLE < self.fraction


def corpus_fingerprint(hashes: NDArray[np.uint64]) -> str:
    """Hash a corpus: which texts it has, and how often each; not their order, their files or their tokenizer.

    Args:
        hashes: (D,) of the texts.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(np.sort(hashes).astype("<u8").tobytes()).hexdigest()


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread numbers over all 64 bits, one to one: the finalizer of SplitMix64."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
