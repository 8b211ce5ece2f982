"""The tokenizer that belongs to a model: carried or named by a checkpoint, or lying in a folder."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from datamodules import TokenizerFile, WordPieceVocab
from datamodules.tokenizers import Tokenizer
from gau_alpha.checkpoints import (
    SPECIAL,
    TOKENIZER,
    VOCABULARY,
    tokenizer_files,
    tokenizer_files_in,
    vocabulary_as_json,
)
from gau_alpha.cli.stored_data import announce, data_of, run_of
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import Description, shown

ADVICE = "Give the tokenizer's file with --tokenizer."
"""How messages about a missing tokenizer end."""

MARKS = {"mask_token": "mask_token", "pad_token": "pad_token"}
"""Names of special tokens in ``tokenizer_config.json`` → arguments of our tokenizers."""

WORD_PIECE_MARKS = {**MARKS, "unk_token": "unknown_token"}
"""The same for BERT's vocabularies."""


def tokenizer_of(checkpoint: Mapping[str, Any], path: Path) -> tuple[Tokenizer, dict[str, str]]:
    """Open the tokenizer that a checkpoint carries, or build the one that it names.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.

    Returns:
        The tokenizer, and its files by name, as a Hugging Face folder has them: what the checkpoint carries, or what is
        made of a tokenizer that needs no file. Nothing is copied because a checkpoint names it.

    Raises:
        ValueError: If there is none, or it can't be opened.
    """
    files = run_of(checkpoint, str(path)).get("tokenizer") or {}
    if not isinstance(files, Mapping) or not all(isinstance(one, str) for pair in files.items() for one in pair):
        raise ValueError(f"{path}: run.tokenizer must hold texts by file name, got {shown(files)}. {ADVICE}")
    files = {name: files[name] for name in (TOKENIZER, VOCABULARY, SPECIAL) if name in files}
    try:
        if files.keys() & {TOKENIZER, VOCABULARY}:
            with TemporaryDirectory() as folder:
                for name, text in files.items():
                    (Path(folder) / name).write_text(text, encoding="utf-8")
                return tokenizer_in(Path(folder))[0], files
        named = _named(checkpoint, path)
        announce(named, str(path))
        tokenizer = named.build()
    except ValueError as error:
        raise ValueError(f"{path} has a tokenizer that can't be opened: {error} {ADVICE}") from error
    return tokenizer, {} if "path" in named.arguments else tokenizer_files(tokenizer)


def _named(checkpoint: Mapping[str, Any], path: Path) -> Description:
    data = data_of(checkpoint, str(path))
    named = None if data is None else data.arguments.get("tokenizer")
    if named is None:
        raise ValueError(f"{path} does not say which tokenizer its run used.")
    return named


@contextmanager
def carried_in_place_of(named: Description | None, carried: Any, where: str) -> Iterator[None]:
    """Let a tokenizer whose file is gone be the one that its checkpoint carries, in this ``with`` block.

    Args:
        named: The tokenizer that the checkpoint's run used; its path is changed. None: it names none.
        carried: Texts by file name.
        where: The checkpoint, for messages.
    """
    gone = None if named is None else named.arguments.get("path")
    files: dict[type, str] = {TokenizerFile: TOKENIZER, WordPieceVocab: VOCABULARY}
    kept = None if named is None else files.get(named.cls)
    text = carried.get(kept) if isinstance(carried, Mapping) else None
    if named is None or not isinstance(gone, str) or Path(gone).expanduser().exists() or not isinstance(text, str):
        yield
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / str(kept)
        file.write_text(text, encoding="utf-8")
        named.arguments["path"] = str(file)
        rank_zero_info(printable(f"{shown(gone)} is gone: the tokenizer is the one that {where} carries"))
        yield


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
    if (folder / TOKENIZER).is_file() and not _is_copy(folder):
        return TokenizerFile(str(folder / TOKENIZER), **_names(settings, MARKS)), False
    if not (folder / VOCABULARY).is_file():
        raise ValueError(f"{folder} holds no tokenizer: it has no {TOKENIZER} and no {VOCABULARY}. {ADVICE}")
    lowercase = settings.get("do_lower_case", True) is not False
    return WordPieceVocab(str(folder / VOCABULARY), lowercase, **_names(settings, WORD_PIECE_MARKS)), True


def tokenizer_class_in(folder: Path) -> dict[str, Any] | None:
    """Name the class, with its arguments, that opens the tokenizer in a Hugging Face folder; None if there is none.

    Args:
        folder: The folder.

    Raises:
        ValueError: If its settings can't be read.
    """
    settings = _settings(folder / SPECIAL)
    if (folder / TOKENIZER).is_file() and not _is_copy(folder):
        arguments = {"path": str(folder / TOKENIZER), **_names(settings, MARKS)}
        return {"class_path": "datamodules.TokenizerFile", "init_args": arguments}
    if (folder / VOCABULARY).is_file():
        lowercase = settings.get("do_lower_case", True) is not False
        arguments = {"path": str(folder / VOCABULARY), **_names(settings, WORD_PIECE_MARKS)}
        return {"class_path": "datamodules.WordPieceVocab", "init_args": {**arguments, "lowercase": lowercase}}
    return None


def _is_copy(folder: Path) -> bool:
    """Whether ``tokenizer.json`` only says, for other software, what ``vocab.txt`` beside it does."""
    files = tokenizer_files_in(folder)
    return VOCABULARY in files and vocabulary_as_json(files) == files.get(TOKENIZER)


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a JSON {type(settings).__name__}; it should be an object.")
    return settings


def _names(settings: Mapping[str, Any], marks: Mapping[str, str]) -> dict[str, str]:
    return {argument: _content(settings[name]) for name, argument in marks.items() if settings.get(name) is not None}


def _content(token: Any) -> str:
    # transformers writes the name alone, or an object that has it under "content"
    return str(token["content"] if isinstance(token, dict) and "content" in token else token)
