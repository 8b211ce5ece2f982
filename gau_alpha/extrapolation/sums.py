"""What passes leave behind, and how documents are made of them.

Sums, never means: exp(total loss / total targets) is the perplexity of the text, a mean of means is not.

Dimensions: P passes, D documents, S sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gau_alpha.extrapolation.batches import Pass

NUM_SUMS = 2
"""What a pass leaves behind: loss and right predictions, summed over its targets."""

_COLUMNS = 8


@dataclass(frozen=True)
class DocumentSums:
    """Sums of every measured document, in document order.

    Attributes:
        array: (D, 8) float64, the columns in the order of the properties below.
    """

    array: np.ndarray

    @classmethod
    def from_passes(cls, sums: np.ndarray, passes: Sequence[Pass]) -> "DocumentSums":
        """Adds up passes in their order, so that it doesn't matter which process made them.

        A pass drawn from a stratum of N positions, one of m, stands for N / m of them. The variance of the estimated
        total is the sum over strata of v = N² (1 − m/N) s² / m (Cochran 1977, equation 5.7), with s² the variance among
        the m. How well that variance is known itself, Σ v² / (m − 1) tells (equation 5.16).

        Args:
            sums: (P, 2) float64, loss and right predictions of each pass.
            passes: What the passes were, those of a document one after the other.
        """
        by_document: dict[int, list[int]] = {}
        for place, one in enumerate(passes):
            by_document.setdefault(one.document, []).append(place)
        array = np.zeros((len(by_document), _COLUMNS))
        for row, places in enumerate(by_document.values()):
            array[row, 3] = sum(len(passes[place].positions) for place in places)
            if passes[places[0]].stratum is None:
                for place in places:  # one after the other: numpy's own sum groups them by how many there are
                    array[row, :2] += sums[place]
                array[row, 2] = array[row, 3]
                continue
            strata: dict[int | None, list[int]] = {}
            for place in places:
                strata.setdefault(passes[place].stratum, []).append(place)
            for members in strata.values():
                size, drawn = passes[members[0]].stratum_size, len(members)
                array[row, :2] += size / drawn * sums[members].sum(0)
                array[row, 2] += size
                if drawn > 1:
                    variance = size**2 * (1 - drawn / size) / drawn * sums[members].var(0, ddof=1)
                    array[row, 4:6] += variance
                    array[row, 6:8] += variance**2 / (drawn - 1)
                else:
                    array[row, 4:8] = np.nan  # one draw says nothing of the variance
        return cls(array)

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
