"""Plain data spoiled by rule: at every place of a file, whatever stands there becomes what does not belong there."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Place = tuple[Any, ...]
"""Keys and indices from the outside in."""

Case = tuple[Place, str, Any]
"""A place, the name of a rule, and what it puts there."""

REMOVED = object()
"""Stands for the absence of a key or item."""

MARKER = "the_strangers_marker"
"""The file that ``HOSTILE`` leaves in the working directory, where it is run."""

HOSTILE = f"""
from pathlib import Path

Path({MARKER!r}).write_text("was imported")


class Evil:
    def __init__(self, *args, **kwargs):
        Path({MARKER!r}).write_text("was built")
"""
"""The code of a module ``evil_things``."""

DIGITS = "a number of 5,000 digits"
"""Stands for one, which ``json`` would not write; see ``with_digits``."""


def nested(levels: int) -> list[Any]:
    content: list[Any] = []
    for _ in range(levels):
        content = [content]
    return content


WRONG = {
    "null": None,
    "true": True,
    "negative": -1,
    "fraction": 1.5,
    "nan": float("nan"),
    "large": 2**62,
    "huge": 10**30,
    "text": "x",
    "list": [],
    "mapping": {},
    "deep": nested(200),
    "digits": DIGITS,
}
"""What takes the place of every value and every container, by the name of the rule."""

NAMES = {
    "function": "os.getcwd",
    "class": "evil_things.Evil",
    "outside": "../outside/x",
    "control": "\x1b[31m",
}
"""What takes the place of every text."""


def places(content: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Walk through plain data: every place, containers too, and what stands there."""
    yield place, content
    inside = content.items() if isinstance(content, dict) else enumerate(content) if is_list(content) else ()
    for key, value in inside:
        yield from places(value, (*place, key))


def changes(content: Any, left_out: Sequence[str] = ()) -> Iterator[Case]:
    """List all that can be done to plain data: place, name of the rule, and the new value there."""
    for place, value in places(content):
        found = {**WRONG, **NAMES} if isinstance(value, str) else dict(WRONG)
        if isinstance(value, Tensor):
            found["another shape"] = torch.zeros(value.numel() + 1)
            found["another dtype"] = value.to(torch.complex64)
            found["not finite"] = torch.full_like(value.float(), torch.nan)
        if isinstance(value, dict):
            found["unknown key"] = {**value, "unknown": 1}
            found["key that is no text"] = {**value, 7: 1}
        if place:
            found["removed"] = REMOVED
        for rule, new in found.items():
            if rule not in left_out and not same(value, new):
                yield place, rule, new


def changed(content: Any, place: Place, value: Any) -> Any:
    """Copy plain data with another value at a place."""
    if not place:
        return value
    key, *rest = place
    copy = dict(content) if isinstance(content, dict) else list(content)
    if value is REMOVED and not rest:
        del copy[key]
    else:
        copy[key] = changed(copy[key], tuple(rest), value)
    return copy


def drawn(cases: Sequence[Case], count: int, dice: random.Random) -> list[Case]:
    """Draw so many cases, more if there are more fields: each is among them, and rules are about equally frequent."""
    waiting = list(cases)
    dice.shuffle(waiting)
    seen: Counter[Any] = Counter()
    taken = []
    while waiting and (len(taken) < count or any(not seen[field(place)] for place, *_ in waiting)):
        # of the field that has been drawn least, the rule that has been drawn least
        best = min(range(len(waiting)), key=lambda i: (seen[field(waiting[i][0])], seen[waiting[i][1]]))
        place, rule, _ = case = waiting.pop(best)
        taken.append(case)
        seen.update([field(place), rule])
    return taken


def field(place: Place) -> Place:
    """Name a field: the items of a list, or what is numbered, are all the same."""
    return tuple("*" if isinstance(key, int) else key for key in place)


def with_digits(text: str) -> str:
    """Write the number that ``DIGITS`` stands for into JSON or YAML."""
    return text.replace(f'"{DIGITS}"', "9" * 5000).replace(DIGITS, "9" * 5000)


def is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and not isinstance(one, Tensor) and one == other
