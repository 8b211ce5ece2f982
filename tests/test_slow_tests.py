"""Tests that start a process or a fit are marked slow: by their fixtures, by hand, or they fail."""

import multiprocessing
import os
import subprocess

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader


@pytest.fixture
def started(slow):
    """A fixture that would start something."""


@pytest.fixture
def built_on_it(started):
    """A fixture that is slow because of another."""


def test_a_slow_fixture_marks_a_test(built_on_it, request):
    assert request.node.get_closest_marker("slow")


def test_others_are_not_marked(tmp_path, request):
    assert not request.node.get_closest_marker("slow")


STARTS = {
    "a command": lambda: subprocess.run(["true"], check=True),
    "a process": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    "a fork": lambda: os.fork(),
    "workers": lambda: list(DataLoader(torch.arange(2), num_workers=1)),
    "a fit": lambda: Trainer(logger=False, enable_checkpointing=False).fit(None),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_an_unmarked_test_can_start_nothing(start):
    with pytest.raises(pytest.fail.Exception, match="mark it slow"):
        start()


@pytest.mark.slow
def test_a_marked_one_can():
    assert subprocess.run(["true"], check=False).returncode == 0
