"""From sums over documents to results: ratios, their intervals, and differences between methods.

Two kinds of intervals answer two questions. Bootstrap over documents: what would other documents of this kind give?
Sampling: what would all positions of these documents have given, had not only some been drawn?

Dimensions: D documents, N examples, R resamples.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from gau_alpha.extrapolation.candidates import Candidate
from gau_alpha.extrapolation.diagnostics import Diagnostics, bin_starts
from gau_alpha.extrapolation.protocols import philox
from gau_alpha.extrapolation.result import DocumentFigures
from gau_alpha.extrapolation.spans import MaskedExample

FEW_DOCUMENTS = 10
"""With fewer, a bootstrap interval is narrower than it should be."""


CONFIDENCE = 0.95
"""Share of resamples that an interval holds."""

_VALUES_AT_ONCE = 4_000_000  # 32 MB of float64
_COLUMNS = 8
_CONTROL_COLUMNS = 2
_ABOUT_DOCUMENTS = re.compile(r"(only )?\d+ documents?: ")


@dataclass(frozen=True)
class DocumentSums:
    """What the forward passes of one method at one length add up to, document by document, in their order.

    Sums, never means: exp(total loss / total targets) is the perplexity of the text, a mean of means is not.

    Attributes:
        array: (D, 8) float64, the columns in the order of the properties below. Under a protocol with controls (D, 10):
            their loss and right predictions come last.
        diagnostics: What attention did; None if nobody looked.
        num_tokens: Tokens read by the model.
        seconds: Time of the passes, the slowest process counting.
        peak_memory_bytes: Largest of all processes; None where it can't be known.
    """

    array: np.ndarray
    diagnostics: Diagnostics | None
    num_tokens: int
    seconds: float
    peak_memory_bytes: int | None

    @classmethod
    def from_examples(
        cls,
        sums: np.ndarray,
        examples: Sequence[MaskedExample],
        diagnostics: Diagnostics | None = None,
        *,
        num_tokens: int = 0,
        seconds: float = 0.0,
        peak_memory_bytes: int | None = None,
    ) -> "DocumentSums":
        """Adds up examples in their order, so that it doesn't matter which process computed them.

        An example drawn from a stratum of N positions, one of m, stands for N / m of them. The variance of the
        estimated total is the sum over strata of v = N² (1 − m/N) s² / m (Cochran 1977, equation 5.7), with s² the
        variance among the m. How well that variance is known itself, Σ v² / (m − 1) tells (equation 5.16).

        Args:
            sums: (N, 2) float64, loss and right predictions of each example, summed over its targets.
            examples: What they were, those of a document one after the other.
            diagnostics: As above, like all that follow.
            num_tokens: Tokens.
            seconds: Time.
            peak_memory_bytes: Memory.
        """
        by_document: dict[int, list[int]] = {}
        for place, one in enumerate(examples):
            by_document.setdefault(one.document, []).append(place)
        has_controls = any(one.is_control for one in examples)
        array = np.zeros((len(by_document), _COLUMNS + _CONTROL_COLUMNS * has_controls))
        for row, all_places in enumerate(by_document.values()):
            controls = [place for place in all_places if examples[place].is_control]
            places = [place for place in all_places if not examples[place].is_control]
            array[row, 3] = sum(len(examples[place].positions) for place in places)
            if examples[places[0]].stratum is None:
                for place in places:  # one after the other: numpy's own sum groups them by how many there are
                    array[row, :2] += sums[place]
                for place in controls:
                    array[row, _COLUMNS:] += sums[place]
                array[row, 2] = array[row, 3]
                continue
            strata: dict[int | None, list[int]] = {}
            for place in places:
                strata.setdefault(examples[place].stratum, []).append(place)
            for members in strata.values():
                size, drawn = examples[members[0]].stratum_size, len(members)
                array[row, :2] += size / drawn * sums[members].sum(0)
                array[row, 2] += size
                if drawn > 1:
                    variance = size**2 * (1 - drawn / size) / drawn * sums[members].var(0, ddof=1)
                    array[row, 4:6] += variance
                    array[row, 6:8] += variance**2 / (drawn - 1)
                else:
                    array[row, 4:8] = np.nan  # one draw says nothing of the variance
        return cls(array, diagnostics, num_tokens, seconds, peak_memory_bytes)

    @property
    def loss(self) -> np.ndarray:
        """(D,) summed negative log-likelihood in nats, of all positions that the targets stand for."""
        return self.array[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """(D,) number of these predicted right."""
        return self.array[:, 1]

    @property
    def positions(self) -> np.ndarray:
        """(D,) number of positions that the targets stand for."""
        return self.array[:, 2]

    @property
    def targets(self) -> np.ndarray:
        """(D,) number of targets."""
        return self.array[:, 3]

    @property
    def loss_variance(self) -> np.ndarray:
        """(D,) variance of ``loss`` from drawing positions, 0 if all were measured, NaN if it can't be told."""
        return self.array[:, 4]

    @property
    def correct_variance(self) -> np.ndarray:
        """(D,) likewise of ``correct``."""
        return self.array[:, 5]

    @property
    def loss_doubt(self) -> np.ndarray:
        """(D,) Σ v² / (m − 1) over the strata that make ``loss_variance``, each of m draws and with variance v."""
        return self.array[:, 6]

    @property
    def correct_doubt(self) -> np.ndarray:
        """(D,) likewise of ``correct_variance``."""
        return self.array[:, 7]

    @property
    def has_controls(self) -> bool:
        """Whether each row was read a second time, with other text in the place of a passage."""
        return self.array.shape[1] > _COLUMNS

    @property
    def gain(self) -> np.ndarray:
        """(D,) loss of the controls minus ``loss``, in nats; only with ``has_controls``."""
        return self.array[:, 8] - self.array[:, 0]

    def figures(self, document: np.ndarray) -> DocumentFigures:
        """What was measured of each document.

        Args:
            document: (D,) their places in the list of all documents.
        """
        control_loss = self.array[:, 8] if self.has_controls else np.full(len(self.array), np.nan)
        return DocumentFigures(document, self.targets, self.positions, self.loss, self.correct, control_loss)

    @property
    def is_finite(self) -> bool:
        """Whether all losses are."""
        losses = self.array[:, [0, 8]] if self.has_controls else self.array[:, :1]
        return bool(np.isfinite(losses).all())


class Statistics:
    """Makes numbers of sums.

    Args:
        num_resamples: Bootstrap resamples behind each interval.
        seed: Of the resamples.
    """

    def __init__(self, num_resamples: int, seed: int) -> None:
        self.num_resamples = num_resamples
        self.seed = seed

    def of(self, sums: DocumentSums) -> dict[str, Any]:
        """The fields of a result that one method's sums alone give; its losses are finite."""
        loss = _ratio(sums.loss, sums)
        return {
            "loss": loss,
            "perplexity": exp(loss),
            "accuracy": _ratio(sums.correct, sums),
            **self._intervals(sums),
            **(self._with_interval("gain", sums.gain, sums) if sums.has_controls else {}),
            **_sampling(sums),
            **_diagnostics(sums.diagnostics),
        }

    def difference(self, sums: DocumentSums, baseline: DocumentSums) -> dict[str, Any]:
        """Loss and accuracy minus the baseline's: the targets are the same, so documents' sums may be subtracted.

        Args:
            sums: The method's, by document.
            baseline: The baseline's, by document.
        """
        known = self._with_interval("loss_difference", sums.loss - baseline.loss, sums)
        known |= self._with_interval("accuracy_difference", sums.correct - baseline.correct, sums)
        if sums.has_controls and baseline.has_controls:
            known |= self._with_interval("gain_difference", sums.gain - baseline.gain, sums)
        return known

    def _with_interval(self, name: str, numerators: np.ndarray, sums: DocumentSums) -> dict[str, float]:
        """A number per position and its interval; none for a single document, which says nothing of others."""
        known = {name: _ratio(numerators, sums)}
        if len(numerators) > 1:
            known[f"{name}_low"], known[f"{name}_high"] = self._interval(numerators, sums)
        return known

    def _intervals(self, sums: DocumentSums) -> dict[str, float]:
        """Intervals of a result's numbers; none for a single document, which says nothing of others."""
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


def notes(candidate: Candidate, num_documents: int) -> Iterator[str]:
    """What a reader should know before quoting a result.

    Args:
        candidate: The method on a model.
        num_documents: Documents measured.
    """
    if candidate.note:
        yield candidate.note
    yield from candidate.compatibility_warnings
    if num_documents == 1:
        yield "1 document: no interval"
    elif num_documents < FEW_DOCUMENTS:
        yield f"only {num_documents} documents: intervals are too narrow"


def flags(note: str) -> list[str]:
    """Take from a result's note what speaks against its method: all but what is said of the number of documents.

    Args:
        note: What ``notes`` said, joined by semicolons.
    """
    return [part for part in note.split("; ") if part and not _ABOUT_DOCUMENTS.match(part)]


def exp(loss: float) -> float:
    """Perplexity of a loss, infinite where a float can't hold it."""
    return math.exp(loss) if loss < math.log(np.finfo(np.float64).max) else math.inf


def student(freedom: float) -> float:
    """Where the middle 95 % of Student's t distribution ends.

    Args:
        freedom: Degrees of freedom, which need not be whole.
    """
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


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


def _diagnostics(found: Diagnostics | None) -> dict[str, Any]:
    if found is None:
        return {}
    entropy = float(found.entropy.mean())
    known: dict[str, Any] = {
        "attention_entropy": entropy,
        "effective_keys": exp(entropy),
        "layers": {"attention_entropy": found.entropy.tolist()},
    }
    if found.sink.any():
        known["sink_share"] = float(found.sink.mean())
        known["layers"] |= {"sink_share": found.sink.tolist()}
    if found.bins.any():
        known["near_share"] = float(found.near.mean())
        known["layers"] |= {
            "near_share": found.near.tolist(),
            "distance_from": bin_starts(found.bins.shape[1]),
            "distance_share": found.bins.tolist(),
        }
    return known


def resampled_ratios(numerators: np.ndarray, denominators: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Σ numerators / Σ denominators over documents drawn with replacement.

    The tokens of one document depend on each other, documents do not. Percentile intervals, as in B. Efron, "Bootstrap
    Methods: Another Look at the Jackknife", 1979.

    The draws depend on D and the seed alone. So two methods measured on the same documents are resampled together, and
    the difference of their results is that of paired comparisons.

    Args:
        numerators: (D,) one sum per document.
        denominators: (D,) one positive count per document.
        num_resamples: R.
        seed: Seed of the draws.

    Returns:
        (R,) float64.
    """
    num_documents = len(numerators)
    generator = np.random.Generator(philox(seed, num_documents, 0))  # length 0: no document's stream
    rows = max(1, _VALUES_AT_ONCE // num_documents)
    ratios = []
    for start in range(0, num_resamples, rows):
        drawn = generator.integers(num_documents, size=(min(rows, num_resamples - start), num_documents))
        ratios.append(numerators[drawn].sum(1) / denominators[drawn].sum(1))
    return np.concatenate(ratios)


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the samples.

    Args:
        samples: (resamples,).

    Returns:
        Lower and upper end.
    """
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
