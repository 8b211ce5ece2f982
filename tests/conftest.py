import functools
import importlib.util
import os
import random
import signal
import subprocess
from collections.abc import Callable, Generator
from multiprocessing.process import BaseProcess
from pathlib import Path

# One thread each, here and in every process that a test starts: sums over two threads differ from those over one
# in the last digit, and several tests compare whole runs bit for bit. Must be set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import lightning.pytorch  # noqa: F401 - its log handler keeps the stderr that it meets first: not one that a test closes
import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load_file

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def slow() -> None:
    """Asked for by every fixture that starts a process or a fit: tests that use such a fixture are marked slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a slow fixture; ``make test-quick`` leaves it out. Other slow tests bear the mark themselves."""
    for item in items:
        if isinstance(item, pytest.Function) and "slow" in item.fixturenames:
            item.add_marker("slow")


def pytest_sessionstart() -> None:
    """Let jsonargparse start the Python that it asks once for the search path: it would do so in the first test."""
    if importlib.util.find_spec("jsonargparse") is None:  # a machine that is there for tests/gpu may lack it
        return
    from jsonargparse import ArgumentParser

    ArgumentParser().add_function_arguments(random.seed)


STARTS = ((subprocess.Popen, "__init__"), (BaseProcess, "start"), (os, "fork"), (Trainer, "fit"))
"""What only slow tests may call; a DataLoader's workers and ``subprocess.run`` are among it."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Fail a test that is not marked slow but starts a process or a fit, itself or in a fixture."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("slow") is None:
            for owner, name in STARTS:
                patch.setattr(owner, name, refused(getattr(owner, name)))
        return (yield)


def refused(start: Callable) -> Callable:
    @functools.wraps(start)  # the command line asks for its signature
    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("This test starts a process or a fit: mark it slow, or let its fixture ask for the fixture `slow`.")

    return refuse


@pytest.fixture(autouse=True)
def _seeded():
    """Tests draw from torch's generator; each starts from the same state, in any order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """What the published code computes; see parity/README.md."""
    files = sorted((Path(__file__).parent / "parity").glob("golden_*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
