"""A label per text or pair of texts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.arguments import require_kind
from datamodules.labelled.examples import (
    Example,
    Examples,
    ids_of,
    label_number,
    mask_of,
    require_labels,
    text_in,
    value_in,
    without_label,
)
from datamodules.labelled.frame import Frame
from datamodules.tokenizers import Tokenizer


class SequenceExamples(Examples):
    """Texts, or pairs of texts, with one label each.

    Args:
        labels: What there is to choose from, in order; records give one by name or number.
        text: Column with the text.
        text_pair: Column with a second text; None: there is none.
        label: Column with the label.

    Raises:
        ValueError: If the labels are no list of different names, or a column's name is no text.
    """

    def __init__(
        self, labels: list[str], text: str = "text", text_pair: str | None = None, label: str = "label"
    ) -> None:
        require_labels(labels)
        require_kind(str, text=text, label=label)
        require_kind(str | None, text_pair=text_pair)
        self.labels = labels
        self.text = text
        self.text_pair = text_pair
        self.label = label

    def texts(self, record: Mapping[str, Any]) -> str:
        """Write the texts, without the label."""
        return without_label(record, [self.text, *([self.text_pair] if self.text_pair else [])])

    def encode(
        self, record: Mapping[str, Any], tokenizer: Tokenizer, frame: Frame, limit: int | None, with_label: bool
    ) -> Example:
        """Put the texts into a row; too long a row loses the ends of its texts, of the longer one first."""
        columns = [self.text, *([self.text_pair] if self.text_pair else [])]
        row = frame.put([ids_of(text_in(record, column), tokenizer) for column in columns], limit)
        arrays = {
            "input_ids": row.input_ids,
            "attention_mask": mask_of(row.input_ids),
            "token_type_ids": row.token_type_ids,
        }
        if with_label:
            arrays["labels"] = np.array(label_number(value_in(record, self.label), self.labels))
        return Example(arrays, row.is_cut)
