"""Bootstrap over documents: the tokens of one document depend on each other, documents do not.

B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979; percentile intervals.

Dimensions: D documents, R resamples.
"""

import numpy as np

from gau_alpha.extrapolation.protocols import philox

CONFIDENCE = 0.95
"""Share of resamples that an interval holds."""

_VALUES_AT_ONCE = 4_000_000  # 32 MB of float64


def resampled_ratios(numerators: np.ndarray, denominators: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Σ numerators / Σ denominators over documents drawn with replacement.

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
