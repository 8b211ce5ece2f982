"""What can be evaluated: a Lightning checkpoint, or a Hugging Face folder as it is, seen as one."""

import hashlib
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

from gau_alpha.checkpoints.checksum import read_hashed
from gau_alpha.checkpoints.folders import CONFIG, folder_head, read_folder
from gau_alpha.checkpoints.identity import RUN_KEY
from gau_alpha.checkpoints.tokenizer import SPECIAL, TOKENIZER, VOCABULARY
from gau_alpha.checkpoints.training import MODEL_PREFIX, read_checkpoint


def is_folder(path: str | PathLike[str]) -> bool:
    """Say whether a path is a Hugging Face folder."""
    return (Path(path) / CONFIG).is_file()


def read_evaluated(path: str | PathLike[str]) -> dict[str, Any]:
    """Read what is to be evaluated.

    Args:
        path: A Lightning checkpoint of a ``GAUAlphaModule``, or a Hugging Face folder of a masked language model.

    Returns:
        A checkpoint as ``read_checkpoint`` returns it. That of a folder holds weights, sizes, method and
        ``train_length``, and carries the folder's tokenizer; it knows no data.

    Raises:
        ValueError: If it can't be read, the folder's model has another head, or the folder says no ``train_length``.
    """
    return _from_folder(Path(path)) if is_folder(path) else read_checkpoint(path)


def read_evaluated_hashed(path: str | PathLike[str]) -> tuple[dict[str, Any], str]:
    """Read what is to be evaluated, and hash what was read.

    Args:
        path: As for ``read_evaluated``.

    Returns:
        The checkpoint, and a SHA-256: of the file, or of the folder's weights and ``config.json``.

    Raises:
        ValueError: As ``read_evaluated``.
    """
    path = Path(path)
    if not is_folder(path):
        return read_hashed(path, read_checkpoint) if path.is_file() else (read_checkpoint(path), "")  # which refuses
    stored = read_folder(path)
    checkpoint, weights = read_hashed(stored.source, lambda _: read_evaluated(path))
    return checkpoint, hashlib.sha256(weights.encode() + (path / CONFIG).read_bytes()).hexdigest()


def tokenizer_files_in(folder: Path) -> dict[str, str]:
    """Read the tokenizer's files of a folder, as a checkpoint carries them."""
    files = [folder / name for name in (TOKENIZER, VOCABULARY, SPECIAL) if (folder / name).is_file()]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def _from_folder(folder: Path) -> dict[str, Any]:
    head, _ = folder_head(folder)
    if head is not None:
        raise ValueError(f"{folder} holds a model with a head for another task, which predicts no hidden tokens.")
    stored = read_folder(folder)
    if stored.train_length is None:
        raise ValueError(
            f"{folder} does not say how many tokens its training rows had, the unit of all lengths: write train_length "
            f"into its {CONFIG}."
        )
    return {
        "state_dict": {MODEL_PREFIX + name: tensor for name, tensor in stored.weights.items()},
        "hyper_parameters": {
            "config": asdict(stored.config),
            "train_length": stored.train_length,
            "method": stored.method.with_train_length(stored.train_length).describe(),
        },
        RUN_KEY: {"tokenizer": tokenizer_files_in(folder)},
    }
