"""The tokenizer that belongs to a model: named by a run's config inside a checkpoint, or lying in a folder."""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from datamodules import TokenizerFile, WordPieceVocab
from datamodules.tokenizers import Tokenizer
from gau_alpha.checkpoints import SPECIAL, TOKENIZER, VOCABULARY
from gau_alpha.cli.record import RUN_KEY

ADVICE = "Give the tokenizer's file with --tokenizer."
"""How messages about a missing tokenizer end."""


def data_of(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Take the section ``data`` out of the run's config that a checkpoint holds; empty if it holds none."""
    found: Any = checkpoint
    for key in (RUN_KEY, "config", "data"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}


def tokenizer_of(checkpoint: Mapping[str, Any], path: Path) -> Tokenizer:
    """Build the tokenizer that a checkpoint's run used.

    Only classes of ``datamodules`` are built: a checkpoint is data, and may come from a stranger.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.

    Raises:
        ValueError: If it names none, or one that can't be built.
    """
    named = (data_of(checkpoint).get("init_args") or {}).get("tokenizer")
    named = {"class_path": named} if isinstance(named, str) else named
    if not isinstance(named, Mapping) or not isinstance(named.get("class_path"), str):
        raise ValueError(f"{path} does not say which tokenizer its run used. {ADVICE}")
    module, _, name = named["class_path"].rpartition(".")
    if module.split(".")[0] != "datamodules":
        raise ValueError(f"{path} names the tokenizer {named['class_path']}, which is none of datamodules'. {ADVICE}")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path} names the tokenizer {named['class_path']}, which does not exist. {ADVICE}") from error
    if not isinstance(cls, type) or not issubclass(cls, Tokenizer):
        raise ValueError(f"{path} names the tokenizer {named['class_path']}, which is no tokenizer. {ADVICE}")
    try:
        return cls(**named.get("init_args") or {})
    except TypeError as error:
        raise ValueError(f"{path} names a tokenizer that can't be built: {error}. {ADVICE}") from error
    except ValueError as error:
        raise ValueError(f"{path} names a tokenizer that can't be built: {error} {ADVICE}") from error


def tokenizer_in(folder: Path) -> tuple[Tokenizer, bool]:
    """Open the tokenizer that lies in a Hugging Face folder.

    Args:
        folder: The folder.

    Returns:
        The tokenizer, and whether its model expects [CLS] before and [SEP] after a text: those with a ``vocab.txt`` and
        nothing else, the published ones, were trained so.

    Raises:
        ValueError: If there is none, or it can't be read.
    """
    settings = _settings(folder / SPECIAL)
    names = {name: _content(settings[name]) for name in ("mask_token", "pad_token") if settings.get(name) is not None}
    if (folder / TOKENIZER).is_file():
        return TokenizerFile(str(folder / TOKENIZER), **names), False
    if not (folder / VOCABULARY).is_file():
        raise ValueError(f"{folder} holds no tokenizer: it has no {TOKENIZER} and no {VOCABULARY}. {ADVICE}")
    lowercase = settings.get("do_lower_case", True) is not False
    return WordPieceVocab(str(folder / VOCABULARY), lowercase, **names), True


def tokenizer_class_in(folder: Path) -> dict[str, Any] | None:
    """Name the class, with its arguments, that opens the tokenizer in a Hugging Face folder; None if there is none.

    Args:
        folder: The folder.

    Raises:
        ValueError: If its settings can't be read.
    """
    settings = _settings(folder / SPECIAL)
    names = {name: _content(settings[name]) for name in ("mask_token", "pad_token") if settings.get(name) is not None}
    if (folder / TOKENIZER).is_file():
        arguments = {"path": str(folder / TOKENIZER), **names}
        return {"class_path": "datamodules.TokenizerFile", "init_args": arguments}
    if (folder / VOCABULARY).is_file():
        lowercase = settings.get("do_lower_case", True) is not False
        arguments = {"path": str(folder / VOCABULARY), **names}
        return {"class_path": "datamodules.WordPieceVocab", "init_args": {**arguments, "lowercase": lowercase}}
    return None


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a JSON {type(settings).__name__}; it should be an object.")
    return settings


def _content(token: Any) -> str:
    # transformers writes the name alone, or an object that has it under "content"
    return str(token["content"] if isinstance(token, dict) and "content" in token else token)
