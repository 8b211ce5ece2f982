"""Objects from plain data: what a file describes is looked up in a table of classes, never imported by name.

A description is a class and its arguments: ``{"class_path": "gau_alpha.scaling.InfoScale", "init_args": {…}}``, or the
class path alone. It is held against the table and the constructor's type hints before anything is built.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.trust import import_trusted, is_trusted

_LISTS = (list, Sequence, Iterable)
_DEEPEST = 32
_OURS = ("gau_alpha", "datamodules", "callbacks")


@dataclass(frozen=True)
class Description:
    """A class of the table and arguments that fit its constructor; nothing is built yet.

    Attributes:
        cls: The class.
        arguments: Values by name: plain data, or descriptions of further objects.
        where: File and field, for messages.
    """

    cls: type
    arguments: dict[str, Any]
    where: str

    def build(self) -> Any:
        """Build the object and what it holds.

        Raises:
            ValueError: If a constructor refuses a value.
        """
        arguments = built(self.arguments)
        try:
            return self.cls(**arguments)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"{self.where}: {error}") from error

    def as_dict(self) -> dict[str, Any]:
        """Return plain data again: ``{"class_path": …, "init_args": {…}}``."""
        return {"class_path": public_path(self.cls), "init_args": described(self.arguments)}

    def walk(self) -> "Iterator[Description]":
        """Yield this description and all below it."""
        yield self
        yield from (below for value in self.arguments.values() for below in _walk(value))


class Registry:
    """The classes that a file may name, by the place where it may name them.

    Args:
        places: For each base class, which is what a constructor's type hints name, the classes that may stand there.
            A base that is its own only class may be described by its arguments alone.
    """

    def __init__(self, places: Mapping[type, Iterable[type]]) -> None:
        self._places = {base: tuple(classes) for base, classes in places.items()}

    def __or__(self, other: "Registry") -> "Registry":
        """Join two tables."""
        return Registry({**self._places, **other._places})

    def names(self, base: type) -> list[str]:
        """List the classes of a place by name, in alphabetical order."""
        return sorted(cls.__name__ for cls in self._places[base])

    def describe(self, base: type, stored: object, where: str) -> Description:
        """Look up what a file describes.

        Args:
            base: The place: what the object has to be.
            stored: Plain data.
            where: File and field, for messages.

        Raises:
            ValueError: If a class is not in the table, and not one that the user trusts; if it is none of ``base``; or
                if an argument is unknown, missing or of the wrong type. Nothing was imported or built then.
        """
        return self._describe(base, stored, where, 0)

    def arguments(self, cls: type, stored: object, where: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
        """Hold plain data against the constructor of a class.

        Args:
            cls: The class.
            stored: Arguments by name.
            where: File and field, for messages.
            left_out: Arguments that a file may not give.

        Returns:
            Values by name: plain data, or descriptions; ``build`` makes objects of these.

        Raises:
            ValueError: As ``describe``.
        """
        return self._arguments(cls, stored, where, 0, left_out)

    def maker(self, base: type, taken: int, stored: object, where: str) -> Description:
        """Look up a class that is to be called with further arguments later; ``build`` then gives a function.

        Args:
            base: What it makes.
            taken: How many arguments, the first of the constructor's, are given later.
            stored: Plain data.
            where: File and field, for messages.

        Raises:
            ValueError: As ``describe``.
        """
        return self._maker(base, taken, stored, where, 0)

    def _describe(self, base: type, stored: object, where: str, depth: int) -> Description:
        if depth > _DEEPEST:
            raise ValueError(f"{where} is nested more than {_DEEPEST} deep.")
        alone = self._places.get(base) == (base,)
        if alone and isinstance(stored, Mapping) and "class_path" not in stored:
            return Description(base, self._arguments(base, stored, where, depth), where)
        named, arguments = (stored, {}) if isinstance(stored, str) else _parts(stored, where)
        cls = self._look_up(base, named, where)
        return Description(cls, self._arguments(cls, arguments, f"{where}.{cls.__name__}", depth), where)

    def _look_up(self, base: type, named: str, where: str) -> type:
        for cls in self._places.get(base, ()):
            if named == cls.__name__ or named in _paths(cls):
                return cls
        if is_trusted(named):
            cls = import_trusted(named)
            if not issubclass(cls, base):
                raise ValueError(f"{where} names {shown(named)}, which is no {base.__name__}.")
            return cls
        known = ", ".join(self.names(base)) if base in self._places else "none"
        advice = ""
        if named.partition(".")[0] in _OURS:
            advice = " It is not there in this version: make the file again, or correct the name."
        elif all(part.isidentifier() for part in named.split(".")) and "." in named:
            advice = (
                f" A file does not decide what runs: if you know that class and trust its code, say so with "
                f"--trust {named} (in Python trust=[{named!r}])."
            )
        raise ValueError(f"{where} names {shown(named)}; what is known there is {known}.{advice}")

    def _arguments(
        self, cls: type, stored: object, where: str, depth: int, left_out: Sequence[str] = ()
    ) -> dict[str, Any]:
        if not isinstance(stored, Mapping):
            raise ValueError(f"{where} must give arguments by name, got {shown(stored)}.")
        parameters = {
            name: parameter for name, parameter in inspect.signature(cls).parameters.items() if name not in left_out
        }
        hints = get_type_hints(cls.__init__)  # type: ignore[misc]  # of the class that is looked at
        known = [name for name, one in parameters.items() if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
        takes_more = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        unknown = [name for name in stored if name not in known]
        if unknown and not (takes_more and all(isinstance(name, str) and name not in left_out for name in unknown)):
            raise ValueError(
                f"{where} has no argument {', '.join(map(shown, unknown))}; it takes {', '.join(known) or 'none'}."
            )
        required = [name for name in known if parameters[name].default is inspect.Parameter.empty]
        if lacking := [name for name in required if name not in stored]:
            raise ValueError(f"{where} lacks {', '.join(lacking)}.")
        return {
            name: self._value(hints.get(name, Any), value, f"{where}.{name}", depth + 1)
            for name, value in stored.items()
        }

    def _value(self, hint: Any, value: object, where: str, depth: int) -> Any:
        """Return a value that fits a type hint: as it is, as a number or tuple of the right kind, or a description."""
        if depth > _DEEPEST:
            raise ValueError(f"{where} is nested more than {_DEEPEST} deep.")
        origin, inner = get_origin(hint), get_args(hint)
        if hint is Any:
            return _plain(value, where, depth)
        if origin in (Union, UnionType):
            return self._first_that_fits(inner, value, where, depth)
        if origin is Literal:
            if any(value == one and type(value) is type(one) for one in inner):
                return value
        elif origin in _LISTS or origin is tuple:
            if isinstance(value, list | tuple):
                kinds = _kinds(origin, inner, len(value))
                if kinds is not None:
                    numbered = enumerate(zip(kinds, value, strict=True))
                    values = [self._value(kind, one, f"{where}[{i}]", depth + 1) for i, (kind, one) in numbered]
                    return tuple(values) if origin is tuple else values
        elif origin in (dict, Mapping):
            if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
                kind = inner[1] if inner else Any
                return {name: self._value(kind, one, f"{where}.{name}", depth + 1) for name, one in value.items()}
        elif origin is Callable or (origin is not None and origin is get_origin(Callable[..., Any])):
            if inner and inner[1] in self._places:
                return self._maker(inner[1], len(inner[0]), value, where, depth)
        elif hint in (None, NoneType):
            if value is None:
                return None
        elif hint is float:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return _as_float(value, where)
        elif hint in (bool, int, str):
            if type(value) is hint:
                return value
        elif isinstance(hint, type) and hint in self._places:
            return self._describe(hint, value, where, depth)
        raise ValueError(f"{where} must be of type {_shown_hint(hint)}, got {shown(value)}.")

    def _first_that_fits(self, hints: Sequence[Any], value: object, where: str, depth: int) -> Any:
        if value is None and NoneType in hints:
            return None
        hints = [hint for hint in hints if hint is not NoneType]
        # what it is exactly comes first, so that a whole number stays one where int and float are allowed
        exact = [hint for hint in hints if type(value) is hint]
        faults = []
        for hint in exact or hints:
            try:
                return self._value(hint, value, where, depth)
            except ValueError as fault:
                faults.append(fault)
        if len(faults) == 1:
            raise faults[0]
        raise ValueError(f"{where} must be of type {' or '.join(map(_shown_hint, hints))}, got {shown(value)}.")

    def _maker(self, base: type, taken: int, value: object, where: str, depth: int) -> "_Maker":
        named, arguments = (value, {}) if isinstance(value, str) else _parts(value, where)
        cls = self._look_up(base, named, where)
        given = list(inspect.signature(cls).parameters)[:taken]
        return _Maker(cls, self._arguments(cls, arguments, f"{where}.{cls.__name__}", depth, given), where)


class _Maker(Description):
    """A class with some arguments, to be called with the others."""

    def build(self) -> Any:
        return partial(self.cls, **built(self.arguments))


def exported(package: ModuleType, base: type) -> tuple[type, ...]:
    """List the classes that a package exports for a place: those of ``base`` that are more than an interface.

    Args:
        package: A package or module.
        base: What they are subclasses of.
    """
    public = {name: one for name, one in vars(package).items() if not name.startswith("_")}
    classes = [one for one in public.values() if isinstance(one, type) and issubclass(one, base) and one is not base]
    return tuple(one for one in classes if not inspect.isabstract(one))


def public_path(cls: type) -> str:
    """Return the shortest path that a class can be imported from: ``gau_alpha.position.RoPE``, not its file's."""
    return _paths(cls)[0]


def built(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Build the objects among arguments that ``Registry.arguments`` has described.

    Args:
        arguments: Values by name.

    Raises:
        ValueError: If a constructor refuses a value.
    """
    return {name: _built(value) for name, value in arguments.items()}


def described(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn arguments that ``Registry.arguments`` has checked into plain data again.

    Args:
        arguments: Values by name.
    """
    return {name: _described(value) for name, value in arguments.items()}


def shown(value: object, most: int = 80) -> str:
    """Show a value of a file in a message: short, and without characters that a terminal would obey.

    Args:
        value: Any value.
        most: Characters.
    """
    if isinstance(value, int) and abs(value) >= 1 << 128:
        return "a number of more than 38 digits"
    if isinstance(value, Mapping | list | tuple | set):
        text = f"{type(value).__name__} of {len(value)}"
    else:
        text = repr(value[: most + 1] if isinstance(value, str) else value)
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _paths(cls: type) -> list[str]:
    """List where a class can be imported from, the shortest path first."""
    parts = cls.__module__.split(".")
    prefixes = [".".join(parts[:end]) for end in range(1, len(parts))]
    public = [name for name in prefixes if vars(sys.modules.get(name, ModuleType(""))).get(cls.__qualname__) is cls]
    return [f"{name}.{cls.__qualname__}" for name in (*public, cls.__module__)]


def _parts(stored: object, where: str) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(stored, Mapping) or not isinstance(stored.get("class_path"), str):
        raise ValueError(f"{where} must name a class, or give class_path and init_args; got {shown(stored)}.")
    if more := [key for key in stored if key not in ("class_path", "init_args")]:
        raise ValueError(f"{where} holds {', '.join(map(shown, more))}; only class_path and init_args belong there.")
    arguments = stored.get("init_args")
    return stored["class_path"], {} if arguments is None else arguments


def _kinds(origin: Any, inner: tuple[Any, ...], length: int) -> Sequence[Any] | None:
    """Return the type hint of each item; None if there are too many or too few."""
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return inner if len(inner) == length else None
    return [inner[0] if inner else Any] * length


def _as_float(value: int | float, where: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{where} is {shown(value)}, more than a floating-point number can hold.") from error


def _plain(value: object, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested more than {_DEEPEST} deep.")
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(one, f"{where}.{name}", depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{where}[{i}]", depth + 1) for i, one in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise ValueError(f"{where} must be plain data, got {shown(value)}.")


def _built(value: Any) -> Any:
    if isinstance(value, Description):
        return value.build()
    if isinstance(value, list | tuple):
        return type(value)(map(_built, value))
    return {name: _built(one) for name, one in value.items()} if isinstance(value, dict) else value


def _described(value: Any) -> Any:
    if isinstance(value, Description):
        return value.as_dict()
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    return {name: _described(one) for name, one in value.items()} if isinstance(value, dict) else value


def _walk(value: Any) -> Iterator[Description]:
    if isinstance(value, Description):
        yield from value.walk()
    elif isinstance(value, list | tuple | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _walk(one)


def _shown_hint(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint).replace("typing.", "")
