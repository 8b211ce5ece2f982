"""What a result needs to tell of the machine and the software that it was made with."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PACKAGES = (
    "gau-alpha-lightning",
    "torch",
    "lightning",
    "torchmetrics",
    "jsonargparse",
    "datasets",
    "tokenizers",
    "numpy",
)
"""Packages whose versions a run records."""


def environment_info() -> dict[str, Any]:
    """Describe package versions, interpreter, machine, command line and git revision as plain data."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "command": ["gau-alpha", *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "git": _git(),
    }


def _git() -> dict[str, Any]:
    """Return revision and dirtiness of the working directory's repository; empty outside of one or without git.

    A repository's own settings can name programs that ``git status`` runs (``core.fsmonitor``, filters, hooks, whatever
    fetches missing objects), and the working directory may be a stranger's. So it is asked under no settings but those
    that say how files are compared.
    """
    places = ("--git-path", "objects", "--git-path", "index", "--git-path", "info/exclude")
    try:
        revision, top, *found = _ask(["rev-parse", "HEAD", "--show-toplevel", *places]).splitlines()
        compared = _ask(["config", "-z", "--get-regexp", r"^core\.(autocrlf|eol|filemode|ignorecase|symlinks)$"])
        objects, index, exclude = (Path(path).absolute() for path in found)
        with TemporaryDirectory() as folder:
            (Path(folder) / "HEAD").write_text(f"{revision}\n")
            for name in ("refs", "info"):
                (Path(folder) / name).mkdir()
            if exclude.is_file():
                shutil.copy(exclude, Path(folder) / "info" / "exclude")
            surely = {
                "GIT_DIR": folder,
                "GIT_WORK_TREE": top,
                "GIT_OBJECT_DIRECTORY": str(objects),
                "GIT_INDEX_FILE": str(index),
                "GIT_OPTIONAL_LOCKS": "0",
            }
            pairs = [entry.partition("\n")[::2] for entry in (*compared.split("\0"), "core.fsmonitor\nfalse")]
            settings = [word for key, value in pairs if value.isalnum() for word in ("-c", f"{key}={value}")]
            # a submodule has settings of its own, and is compared by its revision alone
            changed = _ask([*settings, "status", "--porcelain", "--ignore-submodules=dirty"], surely)
        return {"revision": revision, "dirty": bool(changed)}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def _ask(words: list[str], surely: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *words], capture_output=True, text=True, timeout=10, check=True, env={**os.environ, **(surely or {})}
    )
    return done.stdout.strip()
