"""The shipped files of ``configs/``, found by name wherever the package is installed.

``--config demo.yaml`` and ``--trainer ddp.yaml`` name files: one of the working directory, or else a shipped one.
``--model.method infoscale`` names a preset, whatever lies in the working directory.
"""

import json
import re
from importlib.resources import files
from os.path import isfile
from pathlib import Path
from typing import Any

from gau_alpha.attention.presets import preset, preset_names
from gau_alpha.cli.arguments import METHOD

FOLDERS = {
    "--config": "experiment",
    "-c": "experiment",
    "--model": "model",
    "--data": "data",
    "--trainer": "trainer",
}
"""Where the shipped files lie that an option may name, besides the root of configs/."""


def with_shipped_files(args: list[str]) -> list[str]:
    """Replace names of shipped YAML files by their paths, and that of a preset by what it chooses.

    Args:
        args: Command-line arguments.

    Raises:
        ValueError: If the method is no preset, and no file or class either.
    """
    known = (*FOLDERS, METHOD)
    replaced: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if option in known and equals:
            replaced.append(f"{option}={_located(option, value)}")
        elif replaced and replaced[-1] in known:
            replaced.append(_located(replaced[-1], arg))
        else:
            replaced.append(arg)
    return replaced


def method_named(value: str) -> str | dict[str, Any]:
    """Return what a preset chooses in the place of its name; a file, a class or a mapping stays as it is.

    Args:
        value: What stands for the method on the command line or in a YAML.

    Raises:
        ValueError: If it is a name, but none of a preset, or there is no such file.
    """
    if value.endswith((".yaml", ".yml")):
        if isfile(value):
            return value
        if value.removesuffix(".yaml") not in preset_names():
            raise ValueError(f"model.method: there is no method file {value!r}.")
    name = value.removesuffix(".yaml")
    if name in ("null", "AttentionMethod") or not re.fullmatch(r"[\w -]*", name):
        return value
    return preset(name, "model.method")


def _located(option: str, value: str) -> str:
    if option == METHOD:
        named = method_named(value)
        return named if isinstance(named, str) else json.dumps(named)
    if value != Path(value).stem and isfile(value):  # a word alone is the name of a shipped file
        return value
    root = Path(str(files("configs").joinpath("")))
    for folder in (root, root / FOLDERS[option]):
        for name in (value, f"{value}.yaml"):
            if isfile(folder / name):
                return str(folder / name)
    return value
