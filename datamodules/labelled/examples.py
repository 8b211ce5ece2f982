"""What a kind of task makes of a record."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.arguments import require_kind, shown
from datamodules.labelled.frame import Frame, Ids
from datamodules.tokenizers import Tokenizer

IGNORED = -100
"""The label of what is no target."""


@dataclass(frozen=True)
class Example:
    """A record in the form that batches are made of.

    Attributes:
        arrays: By the names that the model knows them by.
        is_cut: Whether text was left out because the row would have been too long.
    """

    arrays: dict[str, NDArray[np.int64]]
    is_cut: bool = False


class LeftOutError(Exception):
    """A record of which no example can be made; the message says why, and is counted."""


class Examples(ABC):
    """What a kind of task makes of records.

    Attributes:
        labels: What there is to choose from, in order; empty where it is no choice among fixed labels.
    """

    labels: list[str]

    @abstractmethod
    def encode(
        self, record: Mapping[str, Any], tokenizer: Tokenizer, frame: Frame, limit: int | None, with_label: bool
    ) -> Example:
        """Make an example.

        Args:
            record: The record.
            tokenizer: The tokenizer.
            frame: Puts texts between special tokens.
            limit: Most tokens of a row; None: as many as there are.
            with_label: Whether the label is wanted.

        Raises:
            ValueError: If the record lacks something.
            LeftOutError: If no example can be made of it.
        """

    def texts(self, record: Mapping[str, Any]) -> str:
        """Write what a record is about, by which it is held out or not: here the whole record, its label included.

        Args:
            record: The record.
        """
        return json.dumps(record, sort_keys=True, ensure_ascii=False, default=str)


def without_label(record: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Write some columns of a record as one text.

    Args:
        record: The record; a column that it lacks is none.
        columns: Their names.
    """
    return json.dumps([record.get(column) for column in columns], ensure_ascii=False, default=str)


def text_in(record: Mapping[str, Any], column: str) -> str:
    """Take a text out of a record.

    Args:
        record: The record.
        column: The name of its column.

    Raises:
        ValueError: If there is none.
    """
    text = value_in(record, column)
    if not isinstance(text, str):
        raise ValueError(f"column {column!r} holds {shown(text)}, which is no text")
    return text


def value_in(record: Mapping[str, Any], column: str) -> Any:
    """Take a value out of a record.

    Args:
        record: The record.
        column: The name of its column.

    Raises:
        ValueError: If there is no such column.
    """
    if column not in record:
        raise ValueError(f"there is no column {column!r}, only {', '.join(sorted(record)[:20])}")
    return record[column]


def label_number(label: Any, labels: list[str]) -> int:
    """Find the number of a label that is given by name or by number.

    Args:
        label: What the record says.
        labels: The names, in the order of their numbers.

    Raises:
        ValueError: If it is none of them.
    """
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
        return label
    if isinstance(label, str | int | float) and str(label) in labels:
        return labels.index(str(label))
    raise ValueError(f"the label {shown(label)} is none of {', '.join(labels[:20])}")


def require_labels(labels: object) -> None:
    """Refuse what is no list of different names.

    Args:
        labels: The argument ``labels``.

    Raises:
        ValueError: If it is something else.
    """
    require_kind(list | tuple, labels=labels)
    assert isinstance(labels, list | tuple)
    require_kind(str, **{f"labels[{number}]": label for number, label in enumerate(labels)})
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"labels={shown(labels)} must hold at least one name, none twice.")


def ids_of(text: str, tokenizer: Tokenizer) -> Ids:
    """Encode a text.

    Args:
        text: The text.
        tokenizer: How it becomes ids.

    Returns:
        (tokens,) int64.
    """
    return tokenizer.encode_batch([text])[0].astype(np.int64)


def mask_of(input_ids: Ids) -> NDArray[np.int64]:
    """Mark all tokens as real.

    Args:
        input_ids: (tokens,) ids.

    Returns:
        (tokens,) int64 ones.
    """
    return np.ones_like(input_ids)
