import os
import signal
from pathlib import Path

# One thread each, here and in every process that a test starts: sums over two threads differ from those over one
# in the last digit, and several tests compare whole runs bit for bit. Must be set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import lightning.pytorch  # noqa: F401 - its log handler keeps the stderr that it meets first: not one that a test closes
import pytest
import torch
from safetensors.torch import load_file
from slow_tests import is_slow

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what runs in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts a process or a fit; ``make test-quick`` leaves it out."""
    for item in items:
        if isinstance(item, pytest.Function) and is_slow(item):
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _seeded():
    """Tests draw from torch's generator; each starts from the same state, in any order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """What the published code computes; see parity/README.md."""
    files = sorted((Path(__file__).parent / "parity").glob("golden_*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
