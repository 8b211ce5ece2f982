"""A label per word."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.arguments import require_kind, shown
from datamodules.labelled.examples import (
    IGNORED,
    Example,
    Examples,
    Ids,
    ids_of,
    label_number,
    mask_of,
    require_labels,
    value_in,
    without_label,
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

    def texts(self, record: Mapping[str, Any]) -> str:
        """Write the texts, without the label."""
        return without_label(record, [self.words])

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
        text, places = self._together(words, tokenizer) or self._one_by_one(words, tokenizer)
        row = frame.put([text], limit)
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

    def _together(self, words: list[str], tokenizer: Tokenizer) -> tuple[Ids, Ids] | None:
        """Encode the words as the text that they make, as pretraining had it.

        Returns:
            (tokens,) ids; (words,) the first token of each word that has letters of it. None where tokens do not tell
            which letters they stand for, a word has none of its own, or one stands for letters of two words.
        """
        text = self.separator.join(words)
        ids = ids_of(text, tokenizer)
        try:
            offsets = tokenizer.offsets(text)  # (tokens, 2)
        except ValueError:
            return None
        stops = np.cumsum([len(word) + len(self.separator) for word in words]) - len(self.separator)  # (words,)
        starts = stops - [len(word) for word in words]
        if len(ids) != len(offsets) or not len(ids):
            return None
        first, last = (
            np.searchsorted(stops, edge, "right") for edge in (offsets[:, 0], offsets[:, 1] - 1)
        )  # (tokens,)
        if (first[offsets[:, 1] > offsets[:, 0]] < last[offsets[:, 1] > offsets[:, 0]]).any():
            return None
        places = []
        for start, stop in zip(starts, stops, strict=True):
            mine = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start))
            if not len(mine):
                return None
            # A mark for the space before a word may claim the word's first letter; it is no part of the word.
            places.append(next((token for token in mine if tokenizer.decode([ids[token]]).strip()), mine[0]))
        return ids, np.array(places, dtype=np.int64)

    def _one_by_one(self, words: list[str], tokenizer: Tokenizer) -> tuple[Ids, Ids]:
        """Encode each word by itself, so that every token is of one word: what ``_together`` returns."""
        encoded = [ids_of(f"{self.separator if number else ''}{word}", tokenizer) for number, word in enumerate(words)]
        if without := [word for word, ids in zip(words, encoded, strict=True) if not len(ids)]:
            raise ValueError(f"the word {shown(without[0])} has no token, so there is none to label; leave it out")
        text = np.concatenate([*encoded, np.empty(0, dtype=np.int64)])
        return text, np.cumsum([0, *map(len, encoded)])[:-1]
