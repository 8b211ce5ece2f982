"""A tiny corpus and a tiny model trained on it through the command line, once for all tests of this folder."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tiny_data import tiny_run, write_texts

from gau_alpha.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Commands are typed in a folder of their own; what they leave must not land in the checkout or later."""
    monkeypatch.chdir(tmp_path)
    yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]  # a class of the user's own, which another test must find unknown


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    folder: Path
    config: Path
    checkpoint: Path


def tiny_config(folder: Path, corpus: Path, **trainer) -> dict:
    settings = {"accelerator": "cpu", "max_steps": 3, "log_every_n_steps": 1, "limit_val_batches": 2, **trainer}
    return tiny_run(folder, corpus, "first", {"save_last": True}, **settings)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_texts(tmp_path_factory.mktemp("corpus"), range(87, 99))


@pytest.fixture(scope="session")
def run(slow, tmp_path_factory, corpus) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(folder, corpus)))
    assert main(["fit", "--config", str(config)]) == 0
    return Run(folder / "run" / "first", config, folder / "run" / "first" / "checkpoints" / "last.ckpt")
