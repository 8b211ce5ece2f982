"""Texts and configs of the small runs that tests start through the command line."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_texts(folder: Path, words: Iterable[int]) -> Path:
    """Write files of so many words each, of eight letters and spaces drawn at random, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(0)
    for number, count in enumerate(words):
        drawn = ("".join(dice.choices("abcdefgh ", k=8)) for _ in range(count))
        (folder / f"{number:03}.txt").write_text(" ".join(drawn))
    return folder


def tiny_run(folder: Path, corpus: Path, version: str, saver: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    """Make the config of a run of two small layers, logged and saved to ``folder/run/version``.

    Args:
        folder: For all that the run leaves.
        corpus: A folder of text files.
        version: Name of the run.
        saver: Arguments of its ModelCheckpoint.
        **trainer: Further settings of the trainer, or others.
    """
    return {
        "seed_everything": 1,
        "trainer": {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(folder),
            "logger": {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {"save_dir": str(folder), "name": "run", "version": version},
            },
            "callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saver}],
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


def text_files(folder: Path, corpus: Path, **more: Any) -> dict[str, Any]:
    """Rows of 16 bytes from a folder of text files, cached below ``folder``."""
    return {
        "class_path": "datamodules.TextDataModule",
        "init_args": {
            "source": {"class_path": "datamodules.TextFiles", "init_args": {"paths": [str(corpus)]}},
            "tokenizer": "datamodules.ByteTokenizer",
            "train_length": 16,
            "batch_size": 4,
            "cache_dir": str(folder / "cache"),
            **more,
        },
    }
