"""Numbers and plain data as text."""

import json
import math
from collections.abc import Callable
from typing import Any


def number(value: float | None) -> str:
    """Three or more digits, never more than eight characters: 3.41, 23.5, 1,234, 2.1e+07."""
    if value is None:
        return ""
    if not 0.01 <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def with_interval(value: float | None, low: float | None, high: float | None, written: Callable[[float], str]) -> str:
    """Write a number with its interval: ``1.20 [1.10, 1.30]``.

    Nothing where there is no number, no brackets where there is no interval.

    Args:
        value: The number.
        low: Lower end of its interval.
        high: Upper end.
        written: How a number is written.
    """
    if value is None:
        return ""
    return written(value) if low is None or high is None else f"{written(value)} [{written(low)}, {written(high)}]"


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
