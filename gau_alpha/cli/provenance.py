"""What a result needs to tell of the machine and the software that it was made with."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
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


def surroundings() -> dict[str, Any]:
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
    """Return revision and dirtiness of the working directory's repository; empty outside of one or without git."""

    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"revision": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {}
