"""YAML and JSON of unknown origin, parsed within limits: what is malformed or hostile ends in one message, soon."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

DEEPEST = 100
"""Levels of mappings and lists within each other."""

MOST_NODES = 20_000
"""Values in a YAML, each counted as often as aliases repeat it."""

MOST_DIGITS = 1000
"""Characters of a number."""

MOST_BYTES_OF_YAML = 2**20
"""Which take some seconds to parse."""

MOST_BYTES_OF_JSON = 64 * 2**20
"""Unless the caller says otherwise; tokenizers of 100,000 words have a tenth of it."""


def parse_yaml(text: str, where: str) -> Any:
    """Parse one YAML document of plain data.

    Args:
        text: The YAML.
        where: Names it in messages.

    Raises:
        ValueError: If it is not YAML, holds tags of its own, a key twice or an anchor within itself, or is larger or
            deeper than any settings are.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES_OF_YAML:
        raise ValueError(f"{where} is larger than {MOST_BYTES_OF_YAML:,} bytes, which is more than a YAML may have.")
    try:
        loader = _Loader(text)  # looks at the first characters
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{where}{place}: not valid YAML: {said}.") from error
    except yaml.reader.ReaderError as error:
        place = f"character {error.position}"
        raise ValueError(
            f"{where}: not valid YAML: {place} is U+{error.character:04X}, a control character."
        ) from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # PyYAML's constructors trust that what stands behind a tag, as in `!!int x`, or looks like a date is one.
        raise ValueError(
            f"{where}: a value in this YAML is not what it looks like or is tagged as: {error}."
        ) from error


def read_yaml(path: Path) -> Any:
    """Parse a YAML file.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file, it can't be read or is not UTF-8, or as ``parse_yaml``.
    """
    return parse_yaml(_read(path, MOST_BYTES_OF_YAML), str(path))


def parse_json(text: str, where: str) -> Any:
    """Parse JSON; NaN and infinities are numbers.

    Args:
        text: The JSON.
        where: Names it in messages.

    Raises:
        ValueError: If it is not JSON, has a key twice in an object, or nests deeper than any file of ours.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where}, {place}: not valid JSON: {error.msg}.") from error
    except RecursionError as error:
        raise ValueError(f"{where} nests deeper than {DEEPEST} levels.") from error
    except ValueError as error:  # of a key, or of an integer's digits
        raise ValueError(f"{where}: {error}") from error
    level = [content]
    for _ in range(DEEPEST + 1):
        containers = [value for value in level if isinstance(value, dict | list)]
        level = [x for parent in containers for x in (parent.values() if isinstance(parent, dict) else parent)]
        if not level:
            return content
    raise ValueError(f"{where} nests deeper than {DEEPEST} levels.")


def read_json(path: Path, most_bytes: int = MOST_BYTES_OF_JSON) -> Any:
    """Parse a JSON file.

    Args:
        path: The file.
        most_bytes: How large it may be.

    Raises:
        ValueError: If there is no such file, it can't be read, is larger or not UTF-8, or as ``parse_json``.
    """
    return parse_json(_read(path, most_bytes), str(path))


def _read(path: Path, most_bytes: int) -> str:
    if "\0" in str(path):
        raise ValueError(f"{str(path)!r} names no file: it holds a null character.")
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a file.")  # a pipe would keep us waiting
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}.") from error
    if len(content) > most_bytes:
        raise ValueError(f"{path} is larger than {most_bytes:,} bytes, which is more than such a file may have.")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}.") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r} stands twice in an object.")
    return result


class _Loader(yaml.SafeLoader):
    """Measures values while they are put together, before anything is made of them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._extents: dict[yaml.Node, tuple[int, int]] = {}
        """Values and levels of each finished node, aliases written out."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._level += 1
        if self._level > DEEPEST + 1:
            raise self._refusal(f"more than {DEEPEST} levels within each other")
        event = self.peek_event()
        node = super().compose_node(parent, index)
        self._level -= 1
        assert node is not None
        if isinstance(event, yaml.AliasEvent):
            if node not in self._extents:
                raise self._refusal(f"the anchor {event.anchor!r} contains itself", event)
        else:
            self._extents[node] = self._measure(node)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if (key.tag, key.value) in seen:
                        raise self._refusal(f"the key {key.value!r} stands twice", key)
                    seen.add((key.tag, key.value))
                children += (key, value)
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        elif node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and len(node.value) > MOST_DIGITS:
            raise self._refusal(f"a number of {len(node.value)} characters, more than {MOST_DIGITS}", node)
        extents = [self._extents[child] for child in children]
        nodes = 1 + sum(count for count, _ in extents)
        levels = max((1 + levels for _, levels in extents), default=0)
        if nodes > MOST_NODES:
            raise self._refusal(f"more than {MOST_NODES:,} values, counting what aliases repeat", node)
        if levels > DEEPEST:
            raise self._refusal(f"more than {DEEPEST} levels within each other", node)
        return nodes, levels

    def _refusal(self, problem: str, at: Any = None) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark if at else self.peek_event().start_mark)
