"""Arguments that this package checks alike: they may come from a file that a stranger wrote."""

import reprlib
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, TypeGuard

LARGEST = 2**31 - 1
"""The largest number of anything."""

LARGEST_SEED = 2**64 - 1
"""The generator's keys have 64 bits."""

LONGEST_ROW = 10_000_000
"""Tokens; a row is made in memory as a whole."""

MOST_WORKERS = 1024
"""Processes; also lanes, which are dealt to them."""


def require_at_least(least: int, most: int = LARGEST, /, **numbers: Any) -> None:
    """Refuse what is no integer within bounds.

    Args:
        least: The smallest that is allowed.
        most: The largest that is allowed.
        **numbers: The arguments, by name.

    Raises:
        ValueError: If one is something else.
    """
    for name, number in numbers.items():
        if not isinstance(number, Integral) or isinstance(number, bool):
            raise ValueError(f"{name}={shown(number)} must be an integer, at least {least}. Set it to one.")
        number = int(number)  # of NumPy, perhaps
        if number < least:
            raise ValueError(f"{name}={shown(number)} must be at least {least}. Set it to a larger number.")
        if number > most:
            raise ValueError(f"{name}={shown(number)} must be at most {most}. Set it to a smaller number.")


def require_kind(kind: type | UnionType, /, **values: object) -> None:
    """Refuse objects of another type.

    Args:
        kind: The type, or several.
        **values: The arguments, by name.

    Raises:
        ValueError: If one has another type.
    """
    for name, value in values.items():
        if not isinstance(value, kind):
            wanted = getattr(kind, "__name__", str(kind))
            raise ValueError(f"{name}={shown(value)} is a {type(value).__name__}, but must be a {wanted}.")


def require_path(**paths: object) -> None:
    """Refuse what is no path of a file or folder.

    Args:
        **paths: The arguments, by name.

    Raises:
        ValueError: If one is no text, empty, or begins with the home of a user whom nobody knows.
    """
    require_kind(str | Path, **paths)
    for name, path in paths.items():
        if not str(path):
            raise ValueError(f"{name}='' names no file. Give its path.")
        try:
            Path(str(path)).expanduser()
        except RuntimeError as error:
            raise ValueError(f"{name}={shown(path)} can't be looked for: {error}. Write the folder out.") from error


def is_number(value: object) -> TypeGuard[float]:
    """Say whether a value is a finite number; True and False are none."""
    # Compared, not converted: an integer may be too large to be one.
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max  # type: ignore[operator]


def are_weights(values: object) -> TypeGuard[Sequence[float]]:
    """Say whether a value is a list of positive numbers that can be added up."""
    return (
        isinstance(values, list | tuple)
        and all(is_number(value) and value > 0 for value in values)
        and sum(map(float, values)) <= sys.float_info.max
    )


class _Short(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out very long ones.
        return repr(x) if x.bit_length() <= 256 else f"<an integer of {x.bit_length()} bits>"


_SHORT = _Short()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 20
_SHORT.maxstring = _SHORT.maxother = 200


def shown(value: object) -> str:
    """Write a value for a message: as ``repr`` does, but not at any length."""
    return _SHORT.repr(value)
