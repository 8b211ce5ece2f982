"""One of several texts.

K choices, L tokens of the longest.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.arguments import require_kind, shown
from datamodules.labelled.examples import Example, Examples, ids_of, mask_of, text_in, value_in, without_label
from datamodules.labelled.frame import Frame
from datamodules.tokenizers import Tokenizer


class MultipleChoiceExamples(Examples):
    """A text and several ways to go on, one of which is right. Records may have different numbers of choices.

    Args:
        text: Column with the text.
        choices: Column with the list of choices.
        label: Column with the number of the right one, from 0.

    Raises:
        ValueError: If a column's name is no text.
    """

    def __init__(self, text: str = "text", choices: str = "text_pair", label: str = "label") -> None:
        require_kind(str, text=text, choices=choices, label=label)
        self.labels = []
        self.text = text
        self.choices = choices
        self.label = label

    def texts(self, record: Mapping[str, Any]) -> str:
        """Write the texts, without the label."""
        return without_label(record, [self.text, self.choices])

    def encode(
        self, record: Mapping[str, Any], tokenizer: Tokenizer, frame: Frame, limit: int | None, with_label: bool
    ) -> Example:
        """Put the text and each choice into a row; too long a row loses the ends of both, of the longer one first.

        Raises:
            ValueError: If there are fewer than two choices, or the label is none of their numbers.
        """
        text, choices = ids_of(text_in(record, self.text), tokenizer), value_in(record, self.choices)
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) for one in choices):
            raise ValueError(f"column {self.choices!r} must hold a list of two or more texts, got {shown(choices)}")
        rows = [frame.put([text, ids_of(choice, tokenizer)], limit) for choice in choices]
        length = max(len(row.input_ids) for row in rows)
        # Padded with 0, which the mask hides: which id stands there does not matter.
        arrays = {
            "input_ids": np.stack([_padded(row.input_ids, length) for row in rows]),  # (K, L)
            "attention_mask": np.stack([_padded(mask_of(row.input_ids), length) for row in rows]),
            "token_type_ids": np.stack([_padded(row.token_type_ids, length) for row in rows]),
            "choice_mask": np.ones(len(rows), dtype=np.int64),  # (K,)
        }
        if with_label:
            label = value_in(record, self.label)
            if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
                raise ValueError(f"the label {shown(label)} is no number of a choice, 0 to {len(choices) - 1}")
            arrays["labels"] = np.array(label)
        return Example(arrays, any(row.is_cut for row in rows))


def _padded(ids: np.ndarray, length: int) -> np.ndarray:
    return np.pad(ids, (0, length - len(ids)))
