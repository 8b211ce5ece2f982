"""Distributions of row lengths: what lengths there are, and the share of batches that has each."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import LONGEST_ROW, are_weights, require_at_least, require_kind, shown

_MOST_LENGTHS = 1024


class LengthDistribution(ABC):
    """A distribution over a few lengths."""

    @abstractmethod
    def lengths(self) -> NDArray[np.int64]:
        """List the (N,) lengths, ascending, each once."""

    @abstractmethod
    def shares(self) -> NDArray[np.float64]:
        """List the (N,) shares of batches that have them, which sum to 1."""


@dataclass(frozen=True)
class FixedSet(LengthDistribution):
    """Stated lengths.

    Args:
        values: The lengths.
        weights: Share of batches of each; they need not sum to 1. Default: equal shares.
    """

    values: list[int]
    weights: list[float] | None = None

    def __post_init__(self) -> None:
        require_kind(list | tuple, values=self.values)
        require_at_least(1, LONGEST_ROW, **{f"values[{number}]": value for number, value in enumerate(self.values)})
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"values={shown(self.values)} must hold at least one length, none twice.")
        if self.weights is not None and (not are_weights(self.weights) or len(self.weights) != len(self.values)):
            raise ValueError(
                f"weights={shown(self.weights)} must hold a positive number for each of values={shown(self.values)}."
            )

    def lengths(self) -> NDArray[np.int64]:
        """Sort them."""
        return np.sort(np.array(self.values, dtype=np.int64))

    def shares(self) -> NDArray[np.float64]:
        """Scale the weights."""
        weights = np.ones(len(self.values)) if self.weights is None else np.array(self.weights, dtype=np.float64)
        return weights[np.argsort(self.values)] / weights.sum()


@dataclass(frozen=True)
class _Between(LengthDistribution):
    minimum: int
    maximum: int
    num_lengths: int = 8

    def __post_init__(self) -> None:
        require_at_least(1, LONGEST_ROW, minimum=self.minimum, maximum=self.maximum)
        require_at_least(1, _MOST_LENGTHS, num_lengths=self.num_lengths)
        if not self.minimum < self.maximum:
            raise ValueError(
                f"minimum={self.minimum} and maximum={self.maximum} must be lengths, at least 1, the first below the "
                "second. For one length use Blocks."
            )
        if not 2 <= self.num_lengths <= self.maximum - self.minimum + 1:
            raise ValueError(
                f"num_lengths={self.num_lengths} must be at least 2, and at most the number of lengths between "
                f"minimum={self.minimum} and maximum={self.maximum}. 8 is usual."
            )

    def shares(self) -> NDArray[np.float64]:
        """Give every length the same share."""
        num_lengths = len(self.lengths())
        return np.full(num_lengths, 1 / num_lengths)


class Uniform(_Between):
    """Lengths evenly spaced between two, in equal shares.

    Args:
        minimum: The shortest.
        maximum: The longest.
        num_lengths: How many lengths; few, so that batches can be filled with rows of one length.
    """

    def lengths(self) -> NDArray[np.int64]:
        """Space them evenly."""
        return np.unique(np.rint(np.linspace(self.minimum, self.maximum, self.num_lengths)).astype(np.int64))


class LogUniform(_Between):
    """Lengths spaced by a constant factor between two, in equal shares: as many batches of 64 to 128 as of 128 to 256.

    Args:
        minimum: The shortest.
        maximum: The longest.
        num_lengths: How many lengths; few, so that batches can be filled with rows of one length.
    """

    def lengths(self) -> NDArray[np.int64]:
        """Space them by a factor; neighbours that round to one length are one."""
        return np.unique(np.rint(np.geomspace(self.minimum, self.maximum, self.num_lengths)).astype(np.int64))
