"""Numbers and plain data as text."""

import json
import math
from collections.abc import Callable
from typing import Any

_UNCERTAIN = math.sqrt(0.025 * 0.975 / 1000) / 0.0584 / (2 * 1.96)
"""Standard error of an interval's end, as a share of its width: the 2.5 % quantile of 1,000 normal resamples (0.0584 is
the normal density there)."""


def number(value: float | None, most: int = 2) -> str:
    """Three or more digits, never more than eight characters: 3.41, 23.5, 1,234, 2.1e+07.

    Args:
        value: The number.
        most: Decimals at most.
    """
    if value is None:
        return ""
    if not 0.01 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.{min(most, 2 if value < 10 else 1 if value < 1000 else 0)}f}"


def decimals(low: float, high: float, most: int) -> int:
    """Say how many decimals the ends of an interval carry: the last one is no finer than half of their standard error.

    Args:
        low: Lower end.
        high: Upper end.
        most: No more than this.
    """
    error = (high - low) * _UNCERTAIN
    return max(0, min(most, math.floor(-math.log10(error / 2)))) if 0 < error < math.inf else most


def ends(low: float, high: float, written: Callable[[float, int], str], most: int) -> tuple[str, str]:
    """Write the ends of an interval with the decimals that resampling gives them.

    Args:
        low: Lower end.
        high: Upper end.
        written: How a number is written with so many decimals.
        most: Decimals at most.
    """
    carried = decimals(low, high, most)
    return written(low, carried), written(high, carried)


def with_interval(
    value: float | None, low: float | None, high: float | None, written: Callable[[float, int], str], most: int
) -> str:
    """Write a number with its interval: ``1.2034 [1.10, 1.30]``.

    Nothing where there is no number, no brackets where there is no interval.

    Args:
        value: The number.
        low: Lower end of its interval.
        high: Upper end.
        written: How a number is written with so many decimals.
        most: Decimals at most.
    """
    if value is None:
        return ""
    text = written(value, most)
    return text if low is None or high is None else f"{text} [{', '.join(ends(low, high, written, most))}]"


def span(numbers: list[int]) -> str:
    """``24 to 40``, or ``24`` where all are alike."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def without_nan(value: Any) -> Any:
    """The same data with None for numbers that are NaN or infinite."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Write plain data as JSON, null for NaN and infinities; characters without a shape are escaped, others stay.

    Args:
        value: Plain data.
    """
    text = json.dumps(without_nan(value), indent=2, allow_nan=False, ensure_ascii=False)
    # Only strings hold such characters, but for the line ends.
    return "".join(one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text)
