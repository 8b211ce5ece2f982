"""What one pass leaves behind, and how a row's numbers are made of it.

Sums, never means: exp(total loss / total targets) is the perplexity of the text, a mean of means is not.

Dimensions: P passes, D documents, S = 5 sums.
"""

from dataclasses import dataclass

import numpy as np

NUM_SUMS = 5  # the columns of PassSums.array, in the order of the properties of DocumentSums


@dataclass(frozen=True)
class DocumentSums:
    """Sums of every measured document, in document order.

    Attributes:
        array: (D, S) float64.
    """

    array: np.ndarray

    @classmethod
    def from_passes(cls, passes: np.ndarray, documents: np.ndarray) -> "DocumentSums":
        """Adds up passes in their order, so that it doesn't matter which process made them.

        Args:
            passes: (P, S) float64 sums of the passes.
            documents: (P,) document of each pass, ascending.
        """
        _, places = np.unique(documents, return_inverse=True)  # (P,) in [0, D)
        array = np.zeros((places[-1] + 1, NUM_SUMS))
        np.add.at(array, places, passes)
        return cls(array)

    @property
    def loss(self) -> np.ndarray:
        """(D,) summed negative log-likelihood in nats."""
        return self.array[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """(D,) number of targets predicted right."""
        return self.array[:, 1]

    @property
    def targets(self) -> np.ndarray:
        """(D,) number of targets."""
        return self.array[:, 2]

    @property
    def entropy(self) -> np.ndarray:
        """(D,) summed attention entropy in nats."""
        return self.array[:, 3]

    @property
    def entropy_terms(self) -> np.ndarray:
        """(D,) number of (layer, query) pairs in ``entropy``; 0 where entropy was not asked for."""
        return self.array[:, 4]
