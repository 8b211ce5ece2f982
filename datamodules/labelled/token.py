"""A label per word."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.arguments import require_kind, shown
from datamodules.labelled.examples import (
    IGNORED,
    Example,
    Examples,
    ids_of,
    label_number,
    mask_of,
    require_labels,
    value_in,
)
from datamodules.labelled.frame import Frame
from datamodules.tokenizers import Tokenizer


class TokenExamples(Examples):
    """Texts cut into words, with a label per word. The label stands at a word's first token; later ones have none.

    Args:
        labels: What there is to choose from, in order; records give them by name or number.
        words: Column with the list of words.
        label: Column with the list of labels, one per word.
        separator: Stands before every word but the first; nothing for Chinese, a character a word.

    Raises:
        ValueError: If the labels are no list of different names, or a column's name is no text.
    """

    def __init__(self, labels: list[str], words: str = "text", label: str = "label", separator: str = " ") -> None:
        require_labels(labels)
        require_kind(str, words=words, label=label, separator=separator)
        self.labels = labels
        self.words = words
        self.label = label
        self.separator = separator

    def encode(
        self, record: Mapping[str, Any], tokenizer: Tokenizer, frame: Frame, limit: int | None, with_label: bool
    ) -> Example:
        """Put the words into a row; too long a row loses the last ones.

        Raises:
            ValueError: If words or labels are no lists of the same length, or a word has no token.
        """
        words = value_in(record, self.words)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"column {self.words!r} must hold a list of words, got {shown(words)}")
        encoded = [ids_of(f"{self.separator if number else ''}{word}", tokenizer) for number, word in enumerate(words)]
        if without := [word for word, ids in zip(words, encoded, strict=True) if not len(ids)]:
            raise ValueError(f"the word {shown(without[0])} has no token, so there is none to label; leave it out")
        text = np.concatenate([*encoded, np.empty(0, dtype=np.int64)])
        row = frame.put([text], limit)
        places = np.cumsum([0, *map(len, encoded)])[:-1]  # (words,) first token of each in the text
        at = places[places < row.kept[0]] + row.starts[0]  # in the row
        word_starts = np.zeros_like(row.input_ids)
        word_starts[at] = 1
        arrays = {
            "input_ids": row.input_ids,
            "attention_mask": mask_of(row.input_ids),
            "token_type_ids": row.token_type_ids,
            "word_starts": word_starts,
        }
        if with_label:
            given = value_in(record, self.label)
            if not isinstance(given, list) or len(given) != len(words):
                raise ValueError(
                    f"column {self.label!r} must hold a label for each of {len(words)} words, got {shown(given)}"
                )
            labels = np.full_like(row.input_ids, IGNORED)
            labels[at] = [label_number(label, self.labels) for label in given[: len(at)]]
            arrays["labels"] = labels
        return Example(arrays, row.is_cut)
