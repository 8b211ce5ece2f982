"""The data that a checkpoint names: looked up in our tables, and said before it is read."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

import datamodules
from datamodules import labelled, masking, rows, sources, tokenizers
from datamodules.labelled import Examples, Table
from datamodules.masking import Masking, RateSchedule, Segmenter
from datamodules.rows import RowMaker
from datamodules.rows.lengths import LengthDistribution
from datamodules.sources import StandardInput, TextSource
from datamodules.tokenizers import Tokenizer
from gau_alpha.checkpoints.identity import RUN_KEY
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.registry import Description, Registry, exported, shown

DATA = Registry(
    {
        LightningDataModule: exported(datamodules, LightningDataModule),
        TextSource: exported(sources, TextSource),
        Tokenizer: exported(tokenizers, Tokenizer),
        RowMaker: exported(rows, RowMaker),
        LengthDistribution: exported(rows, LengthDistribution),
        Masking: exported(masking, Masking),
        RateSchedule: exported(masking, RateSchedule),
        Segmenter: exported(masking, Segmenter),
        Examples: exported(labelled, Examples),
        Table: [Table],
    }
)
"""What a checkpoint may name of its data."""

READ = ("path", "paths")
"""Arguments that name what is read."""

WRITTEN = ("cache_dir",)
"""Arguments that name where is written: a file has no say in that."""

STANDARD_INPUT = "standard input"
"""What is said in the place of a path where the source is ``StandardInput``."""


def run_of(checkpoint: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Take the record of the run out of a checkpoint; empty if it holds none.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        where: The file, for messages.

    Raises:
        ValueError: If it is no record.
    """
    return _section(checkpoint, RUN_KEY, where)


def data_of(checkpoint: Mapping[str, Any], where: str) -> Description | None:
    """Look up what a checkpoint says of its data: without paths that would be written to. None if it says nothing.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        where: The file, for messages.

    Raises:
        ValueError: If it names a class that is none of ours and not trusted, or an argument does not fit.
    """
    stored = _section(run_of(checkpoint, where), "config", where).get("data")
    if stored is None:
        return None
    described = DATA.describe(LightningDataModule, stored, f"{where}: data")
    for part in described.walk():
        for name in WRITTEN:
            part.arguments.pop(name, None)
        if isinstance(path := part.arguments.get("paths"), str):
            part.arguments["paths"] = [path]  # or jsonargparse would take the text "[a, b]" for two of them
        if isinstance(workers := part.arguments.get("num_workers"), int):
            part.arguments["num_workers"] = min(workers, os.cpu_count() or 1)  # changes no batch
    return described


def announce(described: Description, where: str, used: object = None) -> None:
    """Say what will be read because a file says so.

    Args:
        described: What the file says.
        where: The file.
        used: The config that is in effect, as plain data: what it does not name is not read. None: all is read.
    """
    in_use = None if used is None else set(map(repr, _named(used)))
    for path in _paths(described):
        if in_use is None or repr(path) in in_use:
            rank_zero_info(printable(f"{where} says what to read: {shown(path, 200)}"))


def _paths(described: Description) -> list[str]:
    found = [value for part in described.walk() for name, value in part.arguments.items() if name in READ]
    found += [STANDARD_INPUT for part in described.walk() if issubclass(part.cls, StandardInput)]
    return [path for value in found for path in (value if isinstance(value, list) else [value]) if path is not None]


def _named(content: object) -> Iterator[object]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from (value if isinstance(value, list) else [value]) if name in READ else _named(value)
            if name == "class_path" and str(value).endswith(f".{StandardInput.__name__}"):
                yield STANDARD_INPUT
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _named(value)


def _section(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = content.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{where}: {name} must hold entries by name, got {shown(section)}.")
    return section
