"""Which tests start a process or a fit: read from their code, their fixtures' and that of the helpers they call.

Such a test is marked slow when it is collected, so that ``make test-quick`` leaves it out; nobody keeps a list.
"""

import inspect
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest

TESTS = f"{Path(__file__).parents[1]}{os.sep}"
PROCESSES = {"subprocess", "multiprocessing", "torch.multiprocessing", "concurrent.futures"}
"""Modules whose mention is enough."""

NAMES = {"fit", "fork", *PROCESSES}
"""Attributes, functions and modules whose mention is enough."""

WORDS = {"fit", "num_workers"}
"""Texts, as the command's name, and names of arguments whose mention is enough."""

WORKERS = ("workers", "num_workers")
"""How tests call the number of a DataLoader's processes, where it is a parameter: with 0 it starts none."""

ONLY_PARSED = {"--print_config", "--help", "--help_all"}
"""Options with which a command ends before it fits."""


def is_slow(item: pytest.Function) -> bool:
    """Say whether a test starts a process or a fit.

    Args:
        item: The test, with its fixtures.
    """
    fixtures = [definitions[-1].func for definitions in item._fixtureinfo.name2fixturedefs.values()]
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    workers = [parameters[name] for name in WORKERS if name in parameters]
    words = WORDS - {"num_workers"} if workers else WORDS
    seen: set[object] = set()
    return any(workers) or any(_starts(one, words, seen) for one in (item.function, *fixtures, *parameters.values()))


def _starts(one: object, words: set[str], seen: set[object]) -> bool:
    """Look at what a function mentions, and follow it into functions and classes of the tests' own files."""
    one = inspect.unwrap(one) if callable(one) else one
    if isinstance(one, type):
        ours = str(getattr(sys.modules.get(one.__module__), "__file__", "")).startswith(TESTS)
        return ours and any(_starts(member, words, seen) for member in vars(one).values())
    if not isinstance(one, FunctionType) or one in seen or not one.__code__.co_filename.startswith(TESTS):
        return False
    seen.add(one)
    names, texts = _mentioned(one.__code__)
    if names & NAMES or (texts & words and not texts & ONLY_PARSED):
        return True
    values = [one.__globals__[name] for name in names if name in one.__globals__]
    modules = {
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") for value in values
    }
    return bool(modules & PROCESSES) or any(_starts(value, words, seen) for value in values)


@cache
def _mentioned(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Return the names that a function uses, and the texts in it, those of the functions in it included."""
    inner = [_mentioned(one) for one in code.co_consts if isinstance(one, CodeType)]
    names = frozenset(code.co_names).union(*(names for names, _ in inner))
    return names, frozenset(_texts(code.co_consts)).union(*(texts for _, texts in inner))


def _texts(constants: object) -> Iterator[str]:
    if isinstance(constants, str):
        yield constants
    elif isinstance(constants, tuple | frozenset):
        for one in constants:
            yield from _texts(one)
