"""A tiny corpus and a tiny model trained on it through the command line, once for all tests of this folder."""

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tiny_data import text_files

from gau_alpha.cli import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Commands are typed in a folder of their own; what they leave must not land in the checkout."""
    monkeypatch.chdir(tmp_path)


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    folder: Path
    config: Path
    checkpoint: Path


def write_corpus(folder: Path, documents: int = 12, letters: int = 700) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random.seed(0)
    for number in range(documents):
        words = ("".join(random.choices("abcdefgh ", k=8)) for _ in range(letters // 8 + number))
        (folder / f"{number}.txt").write_text(" ".join(words))
    return folder


def tiny_config(folder: Path, corpus: Path, **trainer) -> dict:
    return {
        "seed_everything": 1,
        "trainer": {
            "accelerator": "cpu",
            "default_root_dir": str(folder),
            "max_steps": 3,
            "log_every_n_steps": 1,
            "limit_val_batches": 2,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {"save_dir": str(folder), "name": "run", "version": "first"},
            },
            "callbacks": [
                {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}}
            ],
            **trainer,
        },
        "model": {
            "config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "attention_key_size": 8,
                "num_hidden_layers": 2,
                "initializer_range": 0.3,
            }
        },
        "data": text_files(folder, corpus),
    }


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def run(tmp_path_factory, corpus) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(tiny_config(folder, corpus)))
    assert main(["fit", "--config", str(config)]) == 0
    return Run(folder / "run" / "first", config, folder / "run" / "first" / "checkpoints" / "last.ckpt")
