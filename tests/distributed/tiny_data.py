"""The data section of the small runs that tests start through the command line."""

from pathlib import Path
from typing import Any


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
