"""What the arguments name, found before they are parsed, since it makes the defaults that they are parsed over."""

from collections.abc import Iterable, Iterator
from functools import cache
from os.path import isfile
from pathlib import Path
from typing import Any

from yaml import YAMLError

from gau_alpha.untrusted.reading import parse_yaml, read_yaml
from gau_alpha.untrusted.registry import shown

CONFIG = ("--config", "-c")
"""Options that name a YAML file."""

METHOD = "--model.method"
"""The option whose value is a method: a preset's name, or a YAML file."""

SECTIONS = ("--data", "--model", "--trainer", METHOD, "--model.config")
"""Options whose value may be a YAML file of any name."""


def read_files(args: list[str], sections: bool) -> dict[Path, Any]:
    """Read the YAML files that the arguments name, and those that are named in these.

    Whoever parses them afterwards, and complains of what they say, need not fear how they are written.

    Args:
        args: Command-line arguments.
        sections: Whether ``SECTIONS`` are among the command's options; ``--model`` of ``fill-mask`` is no YAML.

    Returns:
        What they hold.

    Raises:
        ValueError: If one is not YAML, or larger or deeper than settings are.
    """
    named = [(option, value) for option, value in options(args) if value]
    for option, value in named if sections else ():
        # jsonargparse shows a value that it refuses, written out in full
        repeats = value.count("*") > 1 or value.count("[") > 100
        if option.startswith("--") and value.startswith(("[", "{")) and repeats:
            parse_yaml(value, option)
    known = (*CONFIG, *SECTIONS) if sections else CONFIG
    # what is called like a preset is none of the method's files
    named = [(option, value) for option, value in named if option != METHOD or not value.isidentifier()]
    files = [Path(value) for option, value in named if option in known or _is_yaml(value)]
    configs = [Path(value).absolute() for option, value in named if option in CONFIG]
    contents = read_with_named(files)
    for path, content in contents.items():
        if path in configs:
            _check_sections(content, path)
    return contents


def read_with_named(files: Iterable[Path]) -> dict[Path, Any]:
    """Read YAML files and those that are named in them, which lie beside them: jsonargparse looks there.

    Args:
        files: Some of which may not exist.

    Returns:
        What each holds, by absolute path.

    Raises:
        ValueError: If one is not YAML, or larger or deeper than settings are.
    """
    contents: dict[Path, Any] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop().absolute()
        if path not in contents and isfile(path):
            contents[path] = read_yaml(path)
            waiting += [path.parent / value for value in _texts(contents[path]) if _is_yaml(value)]
    return contents


@cache
def limit_parsing() -> None:
    """Let jsonargparse, too, parse YAML within limits: a value on the command line may be one, and a pipe, too."""
    from jsonargparse import get_loader, set_loader

    parse = get_loader("yaml")

    def parse_within_limits(text: str) -> Any:
        parse_yaml(text, "This value")
        return parse(text)

    set_loader("yaml", parse_within_limits, exceptions=(YAMLError, ValueError))


def checkpoint_in(args: list[str]) -> str | None:
    """Find the first checkpoint that the arguments name, on the command line or else in a config file.

    It has to be known before the arguments are parsed, since what it remembers makes the defaults.

    Args:
        args: Command-line arguments.

    Raises:
        ValueError: If what stands there is no name, or a config file is no YAML.
    """
    typed = [_first(value) for option, value in options(args) if option == "--ckpt_path"]
    written = [_first(content.get("ckpt_path")) for content in _contents(args, CONFIG)]
    return next((path for path in (*reversed(typed), *reversed(written)) if path), None)


def start_in(args: list[str]) -> str | None:
    """Find the folder or checkpoint that ``model.init_from`` names, whose sizes and method make the defaults.

    Args:
        args: Command-line arguments.

    Raises:
        ValueError: If what stands there is no name, or a config file is no YAML.
    """
    typed = [value for option, value in options(args) if option == "--model.init_from"]
    written = [model.get("init_from") for model in models(args)]
    given = next((path for path in (*reversed(typed), *reversed(written)) if path), None)
    return None if given == "null" else _name("model.init_from", given)


def models(args: list[str]) -> list[dict[str, Any]]:
    """Collect what config files say of the model, in the order in which they are read."""
    sections = [content.get("model") for content in _contents(args, CONFIG)]
    return [section for section in (*sections, *_contents(args, ("--model",))) if isinstance(section, dict)]


def replacing_data(args: list[str]) -> list[str]:
    """Let ``--data FILE`` replace what a config or a checkpoint says of the data, if the file names the class.

    jsonargparse would keep each setting that the file leaves out, as long as the class is the same.

    Args:
        args: Command-line arguments.

    Returns:
        The same with the section emptied before such a file is read.
    """
    whole = []
    for (option, value), arg in zip(options(args), args, strict=True):
        named = option == "--data" and isfile(value) and isinstance(content := read_yaml(Path(value)), dict)
        if named and "class_path" in content:
            whole += ["--data", "null"]
        whole.append(arg)
    return whole


def _check_sections(content: Any, path: Path) -> None:
    """Refuse what jsonargparse would pass over in silence, or trip over."""
    content = content if isinstance(content, dict) else {}
    model = content.get("model")
    config = model.get("config") if isinstance(model, dict) else None
    for name, section in {"model": model, "model.config": config, "trainer": content.get("trainer")}.items():
        if not isinstance(section, dict | str | None):
            raise ValueError(
                f"{path}: {name} must be a section of settings, or name a file of them; got {shown(section)}."
            )


def _is_yaml(value: str) -> bool:
    return value.endswith((".yaml", ".yml"))


def _texts(content: Any) -> Iterator[str]:
    """Yield the texts in a YAML that may name others: corpora and checkpoints are named in lists, or as paths."""
    if isinstance(content, dict):
        yield from (text for name, value in content.items() if name not in ("path", "paths") for text in _texts(value))
    elif isinstance(content, str):
        yield content


def _contents(args: list[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    files = [Path(value) for option, value in options(args) if option in names]
    contents = [read_yaml(file) for file in files if isfile(file)]
    return [content for content in contents if isinstance(content, dict)]


def options(args: list[str]) -> Iterator[tuple[str, str]]:
    """Yield options and their values; of those without a value, what follows."""
    for arg, following in zip(args, [*args, ""][1:], strict=True):
        option, equals, value = arg.partition("=")
        yield option, value if equals else following


def _first(value: Any) -> str | None:
    """Take the first of a list, which on the command line is written ``[a,b]``."""
    parsed = parse_yaml(value, "ckpt_path") if isinstance(value, str) and value.startswith("[") else value
    return _name("ckpt_path", parsed[0] if isinstance(parsed, list) and parsed else parsed or None)


def _name(option: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{option} must be the name of a file or folder, got {shown(value)}.")
    return value or None
