"""The walks of docs/architecture.md list the files whose functions really run, and no others."""

import json
import os
import re
import subprocess
import sys

import pytest
from pages import ROOT, section

PAGE = ROOT / "docs" / "architecture.md"
MODEL = "In the model"
WALKS = {"training": ("One batch in ten minutes", 26), "evaluation": ("One evaluation", 26)}
"""Heading of a walk, and how many files it may have with those in the model: it can get shorter, not longer."""


def listed(heading: str) -> list[str]:
    """The files of a section's numbered list."""
    return re.findall(r"^\d+\. \[[^]]+\]\(\.\./([^)]+)\)", section(PAGE, heading), re.M)


@pytest.mark.slow
@pytest.mark.parametrize("what", WALKS)
def test_a_walk_lists_the_files_that_run(what, tmp_path):
    heading, most = WALKS[what]
    program = ROOT / "tests" / "walked_files.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(program), what, str(tmp_path)],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ran = json.loads(done.stdout.splitlines()[-1])
    told = {*listed(heading), *listed(MODEL)}
    missing, surplus = [name for name in ran if name not in told], sorted(told - {*ran})
    assert not missing, f"run in {what}, but are not listed under {heading!r} or {MODEL!r}: {', '.join(missing)}"
    assert not surplus, f"are listed under {heading!r} or {MODEL!r}, but don't run in {what}: {', '.join(surplus)}"
    assert len(ran) <= most


@pytest.mark.parametrize("heading", [MODEL, *(heading for heading, _ in WALKS.values())])
def test_a_walk_has_a_line_for_each_file(heading):
    files = listed(heading)
    lines = re.findall(r"^\d+\. ", section(PAGE, heading), re.M)
    assert len(files) == len(lines) == len(set(files)) > 5
