"""What the arguments name, found before they are parsed, since it makes the defaults that they are parsed over."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CONFIG = ("--config", "-c")
"""Options that name a YAML file."""


def checkpoint_in(args: list[str]) -> str | None:
    """Find the first checkpoint that the arguments name, on the command line or else in a config file.

    It has to be known before the arguments are parsed, since what it remembers makes the defaults.
    """
    typed = [_first(value) for option, value in options(args) if option == "--ckpt_path"]
    written = [_first(content.get("ckpt_path")) for content in _contents(args, CONFIG)]
    return next((path for path in (*reversed(typed), *reversed(written)) if path), None)


def start_in(args: list[str]) -> str | None:
    """Find the folder or checkpoint that ``model.init_from`` names, whose sizes and method make the defaults."""
    typed = [value for option, value in options(args) if option == "--model.init_from"]
    written = [model.get("init_from") for model in models(args)]
    return next((path for path in (*reversed(typed), *reversed(written)) if path and path != "null"), None)


def models(args: list[str]) -> list[dict[str, Any]]:
    """Collect what config files say of the model, in the order in which they are read."""
    sections = [content.get("model") for content in _contents(args, CONFIG)]
    return [section for section in (*sections, *_contents(args, ("--model",))) if isinstance(section, dict)]


def _contents(args: list[str], names: tuple[str, ...]) -> list[dict[str, Any]]:
    files = [Path(value) for option, value in options(args) if option in names]
    contents = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return [content for content in contents if isinstance(content, dict)]


def options(args: list[str]) -> Iterator[tuple[str, str]]:
    """Yield options and their values; of those without a value, what follows."""
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        option, equals, value = arg.partition("=")
        yield option, value if equals else following


def _first(value: Any) -> str | None:
    """Take the first of a list, which on the command line is written ``[a,b]``."""
    parsed = yaml.safe_load(value) if isinstance(value, str) and value.startswith("[") else value
    return parsed[0] if isinstance(parsed, list) and parsed else parsed or None
