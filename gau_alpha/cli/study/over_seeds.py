"""What several seeds say: means with intervals, paired differences, and tests of what was named beforehand.

A seed is the unit that is independent: weights and data order are drawn anew, the evaluated text is the same. So
intervals over seeds tell of another training of the same kind, and not of other text; those of ``extrapolate``, over
documents, tell of the latter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from gau_alpha.extrapolation.statistics import student


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: The mean.
        low: Lower end of its 95 % interval (Student's t); None for a single seed.
        high: Upper end.
        num_seeds: How many.
    """

    value: float
    low: float | None
    high: float | None
    num_seeds: int

    @property
    def half_width(self) -> float | None:
        """Half of the interval, for ``mean ± half``."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside of the interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


def mean_of(values: Sequence[float]) -> Mean:
    """Average over seeds.

    Args:
        values: (S,) one per seed.
    """
    array = np.asarray(values, np.float64)
    middle, count = float(array.mean()), len(array)
    if count < 2:
        return Mean(middle, None, None, count)
    reach = student(count - 1) * _error(array)
    return Mean(middle, middle - reach, middle + reach, count)


def p_of_difference(differences: Sequence[float]) -> float:
    """Test that paired differences have the mean 0: Student's t, two-sided.

    Args:
        differences: (S,) one per seed, of two seeds or more.

    Returns:
        The p-value.
    """
    array = np.asarray(differences, np.float64)
    return 2 * _tail(-abs(array.mean()), array)


def p_of_equivalence(differences: Sequence[float], margin: float) -> float:
    """Test that the mean is not within ±margin, by two one-sided tests (Schuirmann 1987): small if it is within.

    Args:
        differences: (S,) one per seed, of two seeds or more.
        margin: What counts as no difference.

    Returns:
        The p-value.
    """
    array = np.asarray(differences, np.float64)
    return max(_tail(-margin - array.mean(), array), _tail(array.mean() - margin, array))


def p_of_excess(differences: Sequence[float], margin: float) -> float:
    """Test that the mean is within ±margin: small if it is outside, on whichever side.

    Args:
        differences: (S,) one per seed, of two seeds or more.
        margin: What counts as no difference.

    Returns:
        The p-value.
    """
    array = np.asarray(differences, np.float64)
    return min(1.0, 2 * _tail(margin - abs(float(array.mean())), array))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Args:
        p_values: (C,) of all comparisons.

    Returns:
        (C,) adjusted, in the same order: those below 0.05 hold together at a familywise error of 5 %.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[int(place)] = largest
    return adjusted


def _error(array: np.ndarray) -> float:
    return float(array.std(ddof=1)) / math.sqrt(len(array))


def _tail(distance: float, array: np.ndarray) -> float:
    """Probability of Student's t below ``distance`` standard errors of the mean."""
    error = _error(array)
    if error == 0:  # seeds that agree to the last digit
        return 0.0 if distance < 0 else 0.5 if distance == 0 else 1.0
    return float(stdtr(len(array) - 1, distance / error))
