"""The shipped YAML files of ``configs/``, found by name wherever the package is installed.

A name that is no file in the working directory is looked up here: ``--config demo.yaml``, ``--trainer ddp.yaml``. One
without an ending, as in ``--model.method infoscale``, is looked up here first, whatever lies in the working directory.
"""

from importlib.resources import files
from pathlib import Path

# where the value of an option is looked up, besides the root of configs/
FOLDERS = {
    "--config": "experiment",
    "-c": "experiment",
    "--model": "model",
    "--model.method": "method",
    "--data": "data",
    "--trainer": "trainer",
}
"""Where the shipped files lie that an option may name."""


def with_shipped_files(args: list[str]) -> list[str]:
    """Replace names of shipped YAML files by their paths, in the values of options that take a file.

    Args:
        args: Command-line arguments.
    """
    replaced: list[str] = []
    for arg in args:
        option, equals, value = arg.partition("=")
        if option in FOLDERS and equals:
            replaced.append(f"{option}={_located(option, value)}")
        elif replaced and replaced[-1] in FOLDERS:
            replaced.append(_located(replaced[-1], arg))
        else:
            replaced.append(arg)
    return replaced


def _located(option: str, value: str) -> str:
    if value != Path(value).stem and Path(value).exists():
        return value
    root = Path(str(files("configs").joinpath("")))
    for folder in (root, root / FOLDERS[option]):
        for name in (value, f"{value}.yaml"):
            if (folder / name).is_file():
                return str(folder / name)
    return value
