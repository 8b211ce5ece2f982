"""Checks that need a GPU; without one they are skipped, and say so.

``GPU_CHECK_DEVICE=cpu`` runs them on a CPU, which checks the checks.
"""

import os

import pytest
import torch
from card_results import put_section

DEVICE = os.environ.get("GPU_CHECK_DEVICE", "cuda")

FOUND: dict[str, list[list[str]]] = {}
"""Rows of the table that the checks leave, by heading."""


def pytest_collection_modifyitems(items):
    missing = DEVICE == "cuda" and not torch.cuda.is_available()
    for item in items:
        if "tests/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.slow)
            if missing:
                item.add_marker(pytest.mark.skip(reason="needs a GPU: this machine has no CUDA device"))


@pytest.fixture
def device():
    return torch.device(DEVICE)


@pytest.fixture
def note():
    """Adds a row to a table of the results' file."""
    return lambda heading, *cells: FOUND.setdefault(heading, []).append([str(cell) for cell in cells])


def pytest_sessionfinish(session, exitstatus):
    if not FOUND or DEVICE != "cuda":
        return
    lines = [f"{session.testscollected} checks, exit status {int(exitstatus)}.", ""]
    for heading, rows in FOUND.items():
        columns = heading.split(" | ")
        lines += ["| " + heading + " |", "|---|" + "---:|" * (len(columns) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in rows] + [""]
    put_section("gpu-check", lines)
