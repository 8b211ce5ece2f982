from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(autouse=True)
def _seeded():
    """Tests draw from torch's generator; each starts from the same state, in any order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    """What the published code computes; see parity/README.md."""
    files = sorted((Path(__file__).parent / "parity").glob("golden_*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
