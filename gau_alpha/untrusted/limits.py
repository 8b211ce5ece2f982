"""Checks of arguments that come from a config, a checkpoint or a caller."""

from numbers import Integral, Real
from os import PathLike
from typing import Any

from gau_alpha.untrusted.registry import shown

LARGEST = 3e38
"""Numbers above are infinite in float32."""

SMALLEST = 1e-38
"""Positive numbers below are 0 in float32, or nearly."""

LARGEST_WHOLE = 2**53
"""Whole numbers above are rounded in float64, and sums of a few of them leave int64."""


def require_number(
    name: str,
    value: Any,
    least: float = -LARGEST,
    most: float = LARGEST,
    above: float | None = None,
    below: float | None = None,
    why: str = "",
) -> None:
    """Check that an argument is a finite number within bounds.

    Args:
        name: Of the argument, for the message.
        value: What was given.
        least: The smallest number allowed.
        most: The largest.
        above: Where the smallest itself is not allowed.
        below: Where the largest itself is not allowed.
        why: What else the message says.

    Raises:
        ValueError: If ``value`` is no number or out of bounds.
    """
    if not _is_a(Real, value):
        raise ValueError(f"{name} must be a number, got {shown(value)}.")
    if _is_a(Integral, value):
        most = min(most, LARGEST_WHOLE)
    enough = least <= value if above is None else above < value and not 0 < value < SMALLEST
    if enough and (value <= most if below is None else value < below):
        return
    lower = f"at least {least:g}" if above is None else f"above {above:g}" if above else "positive"
    upper = f"at most {most:g}" if below is None else f"below {below:g}"
    bounds = [lower] * (above is not None or least != -LARGEST) + [upper] * (below is not None or value > most)
    _refuse(name, " and ".join(bounds) or "finite", value, why)


def require_whole(name: str, value: Any, least: int = 1, most: int = LARGEST_WHOLE, why: str = "") -> None:
    """Check that an argument is a whole number within bounds.

    Args:
        name: Of the argument, for the message.
        value: What was given.
        least: The smallest number allowed.
        most: The largest.
        why: What else the message says.

    Raises:
        ValueError: If ``value`` is no whole number or out of bounds.
    """
    if not _is_a(Integral, value):
        raise ValueError(f"{name} must be a whole number, got {shown(value)}.")
    if value < least:
        _refuse(name, f"at least {least:,}", value, why)
    if value > most:
        _refuse(name, f"at most {most:,}", value, why)


def require_path(name: str, value: Any) -> None:
    """Check that an argument can name a file or folder.

    Args:
        name: Of the argument, for the message.
        value: What was given.

    Raises:
        ValueError: If ``value`` is no text or path, or empty.
    """
    if not isinstance(value, str | PathLike) or not str(value) or "\0" in str(value):
        raise ValueError(f"{name} must be the name of a file or folder, got {shown(value)}.")


def _is_a(kind: type, value: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _refuse(name: str, bounds: str, value: Any, why: str) -> None:
    raise ValueError(f"{name} must be {bounds}, got {shown(value)}{': ' + why if why else ''}.")
