"""Classes of the user's own: built from a file only where the user has named them."""

import inspect
import os.path
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_NO_CLASSES = frozenset({"ckpt_path", "init_from", "path", "paths", "name", "version", "labels"})
"""Settings whose text names a file or a thing, and no class, however it is written."""

_trusted: ContextVar[frozenset[str]] = ContextVar("_trusted", default=frozenset())


@contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Let files that are opened in this ``with`` block name these classes, besides ours.

    Args:
        names: Where they can be imported from, such as ``my_scaling.PowerLaw``.

    Raises:
        ValueError: If one is no such path.
    """
    names = frozenset([names] if isinstance(names, str) else names)
    for name in names:
        if not is_class_path(name):
            raise ValueError(f"trust takes a class by its module and name, such as my_scaling.PowerLaw; got {name!r}.")
    token = _trusted.set(_trusted.get() | names)
    try:
        yield
    finally:
        _trusted.reset(token)


def is_trusted(name: str) -> bool:
    """Say whether the user has named a class."""
    return name in _trusted.get()


def is_class_path(name: object) -> bool:
    """Say whether a value is written as a module and a name in it."""
    return isinstance(name, str) and _CLASS_PATH.fullmatch(name) is not None


def named_classes(content: object, alone: bool = True) -> set[str]:
    """Collect the classes that plain data names: under ``class_path``, or by module and name alone.

    Args:
        content: What a YAML of the user's own holds.
        alone: Whether text that is not under ``class_path`` may name a class.
    """
    if isinstance(content, Mapping):
        under = {value for key, value in content.items() if key == "class_path" and is_class_path(value)}
        return under.union(*(named_classes(x, alone and key not in _NO_CLASSES) for key, x in content.items()))
    if isinstance(content, list):
        return set().union(*(named_classes(value, alone) for value in content))
    # a class is written with a capital; "corpus.txt" is a file, and so is "Corpus.TXT" where there is one
    if alone and is_class_path(content) and str(content).rpartition(".")[2][0].isupper():
        return set() if os.path.exists(str(content)) else {str(content)}
    return set()


def import_trusted(name: str) -> type:
    """Import a class that the user has named.

    Args:
        name: Its module and name.

    Raises:
        ValueError: If there is no such class.
    """
    assert is_trusted(name), "whoever imports has asked"
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name} can't be imported: {error}.") from error
    if not isinstance(found, type):
        raise ValueError(f"{name} is no class.")
    return found


class UserModules(MetaPathFinder):
    """Finds modules of the user's own in some folders, behind all that can be imported anyway.

    It answers for the modules that the user has named and for what those import that it has found, and for nobody else:
    a file that happens to lie in the working directory is never taken for a library that something asks for. Whoever
    names a class of a library, which is found elsewhere, has not named what that library would like to import.

    Args:
        folders: Where to look.
        names: Modules that the user has named.
    """

    def __init__(self, folders: Sequence[Path], names: Iterable[str]) -> None:
        self.folders = [str(folder.resolve()) for folder in folders]
        self.names = {name.partition(".")[0] for name in names}
        self.found: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module; what is in a package is found by its own path.

        Args:
            fullname: Of the module.
            path: Of the package that it is in; None: it is in none.
            target: Not used.
        """
        if path is not None or not (fullname in self.names or _importing_module() in self.found):
            return None
        spec = PathFinder.find_spec(fullname, self.folders)
        if spec is not None:
            self.found.add(fullname)
        return spec


@contextmanager
def user_modules(folders: Sequence[Path], names: Iterable[str]) -> Iterator[None]:
    """Let the classes that the user has named be imported from folders, in this ``with`` block.

    Args:
        folders: Looked through in this order, behind everything else.
        names: The classes or modules.
    """
    finder = UserModules(folders, names)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def _importing_module() -> str:
    """Return the top of the name of the module whose ``import`` is being carried out."""
    frame = inspect.currentframe()
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and name.partition(".")[0] not in ("importlib", "_frozen_importlib"):
            return name.partition(".")[0]
        frame = frame.f_back
    return ""
