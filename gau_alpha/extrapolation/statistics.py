"""From measurements to rows: ratios of sums, their intervals, and differences between methods.

Two kinds of intervals answer two questions. Bootstrap over documents: what would other documents of this kind give?
Sampling: what would all positions of these documents have given, had not only some been drawn?
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from gau_alpha.extrapolation.contenders import Contender
from gau_alpha.extrapolation.diagnostics import bin_starts
from gau_alpha.extrapolation.intervals import interval, resampled_ratios
from gau_alpha.extrapolation.measurement import Measurement
from gau_alpha.extrapolation.sums import DocumentSums

FEW_DOCUMENTS = 10
"""With fewer, a bootstrap interval is narrower than it should be."""

_NORMAL = 1.959963984540054  # the middle 95 % of a normal distribution, in standard deviations


class Statistics:
    """Makes numbers of measurements.

    Args:
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of the resamples.
    """

    def __init__(self, num_resamples: int, seed: int) -> None:
        self.num_resamples = num_resamples
        self.seed = seed

    def of(self, measurement: Measurement) -> dict[str, Any]:
        """The fields of a row that a measurement alone gives; its losses are finite."""
        sums = measurement.sums
        loss = _ratio(sums.loss, sums)
        return {
            "loss": loss,
            "perplexity": exp(loss),
            "accuracy": _ratio(sums.correct, sums),
            **self._intervals(sums),
            **_sampling(sums),
            **_diagnostics(measurement),
        }

    def difference(self, sums: DocumentSums, baseline: DocumentSums) -> dict[str, Any]:
        """Loss and accuracy minus the baseline's: the targets are the same, so documents' sums may be subtracted.

        Args:
            sums: The method's, by document.
            baseline: The baseline's, by document.
        """
        known: dict[str, Any] = {}
        for name, gained in (("loss", sums.loss - baseline.loss), ("accuracy", sums.correct - baseline.correct)):
            known[f"{name}_difference"] = _ratio(gained, sums)
            if len(gained) > 1:
                low, high = self._interval(gained, sums)
                known |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
        return known

    def _intervals(self, sums: DocumentSums) -> dict[str, float]:
        """Intervals of a row's numbers; none for a single document, which says nothing of others."""
        if len(sums.positions) < 2:
            return {}
        loss_low, loss_high = self._interval(sums.loss, sums)
        accuracy_low, accuracy_high = self._interval(sums.correct, sums)
        return {
            "loss_low": loss_low,
            "loss_high": loss_high,
            "perplexity_low": exp(loss_low),
            "perplexity_high": exp(loss_high),
            "accuracy_low": accuracy_low,
            "accuracy_high": accuracy_high,
        }

    def _interval(self, numerators: np.ndarray, sums: DocumentSums) -> tuple[float, float]:
        return interval(resampled_ratios(numerators, sums.positions, self.num_resamples, self.seed))


def notes(contender: Contender, num_documents: int) -> Iterator[str]:
    """What a reader should know before quoting a row.

    Args:
        contender: The method on a model.
        num_documents: Documents measured.
    """
    if contender.note:
        yield contender.note
    yield from contender.reservations
    if num_documents == 1:
        yield "1 document: no interval"
    elif num_documents < FEW_DOCUMENTS:
        yield f"only {num_documents} documents: intervals are too narrow"


def exp(loss: float) -> float:
    """Perplexity of a loss, infinite where a float can't hold it."""
    return math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else math.inf


def student(freedom: float) -> float:
    """Where the middle 95 % of Student's t distribution ends; ``freedom`` need not be whole.

    Four terms of the expansion in 1 / freedom (Abramowitz and Stegun 1964, 26.7.5): 0.04 % off at 4 degrees, 0.7 % at
    2, 11 % too narrow at 1.
    """
    z = _NORMAL
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))


def _ratio(numerators: np.ndarray, sums: DocumentSums) -> float:
    return float(numerators.sum() / sums.positions.sum())


def _sampling(sums: DocumentSums) -> dict[str, float]:
    """Intervals of what all positions would have given; none where all were measured or the variance is unknown."""
    known: dict[str, float] = {}
    for name, totals, variance, doubt in (
        ("loss", sums.loss, sums.loss_variance, sums.loss_doubt),
        ("accuracy", sums.correct, sums.correct_variance, sums.correct_doubt),
    ):
        if np.isfinite(variance).all() and variance.any():
            # The variance is an estimate, from two draws per stratum: Satterthwaite's degrees of freedom.
            freedom = float(variance.sum() ** 2 / doubt.sum())
            reach = student(freedom) * math.sqrt(variance.sum()) / float(sums.positions.sum())
            middle = _ratio(totals, sums)
            known |= {f"{name}_sampling_low": middle - reach, f"{name}_sampling_high": middle + reach}
    return known


def _diagnostics(measurement: Measurement) -> dict[str, Any]:
    found = measurement.diagnostics
    if found is None:
        return {}
    entropy = float(found.entropy.mean())
    known: dict[str, Any] = {
        "attention_entropy": entropy,
        "effective_keys": exp(entropy),
        "layers": {"attention_entropy": found.entropy.tolist()},
    }
    if found.bins.any():
        known["near_share"] = float(found.near.mean())
        known["layers"] |= {
            "near_share": found.near.tolist(),
            "distance_from": bin_starts(found.bins.shape[1]),
            "distance_share": found.bins.tolist(),
        }
    return known
