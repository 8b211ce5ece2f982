"""The span of a text that answers a question, in SQuAD's layout.

L tokens of a row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from datamodules.arguments import require_kind, shown
from datamodules.labelled.examples import (
    Example,
    Examples,
    LeftOutError,
    ids_of,
    mask_of,
    text_in,
    value_in,
    without_label,
)
from datamodules.labelled.frame import Frame
from datamodules.tokenizers import Tokenizer


class QuestionAnsweringExamples(Examples):
    """Questions, each with a context that holds the answer.

    An answer is ``{"text": …, "answer_start": …}``: its first character in the context, counted from 0; lists of
    several answers are allowed, of which the first counts. A record without an answer is left out, and so is, where
    rows are cut, one whose answer was cut off; both are counted.

    Args:
        text: Column with the question.
        text_pair: Column with the context.
        label: Column with the answer.

    Raises:
        ValueError: If a column's name is no text.
    """

    def __init__(self, text: str = "question", text_pair: str = "context", label: str = "answers") -> None:
        require_kind(str, text=text, text_pair=text_pair, label=label)
        self.labels = []
        self.text = text
        self.text_pair = text_pair
        self.label = label

    def texts(self, record: Mapping[str, Any]) -> str:
        """Write the context: questions about one context share a side."""
        return without_label(record, [self.text_pair])

    def encode(
        self, record: Mapping[str, Any], tokenizer: Tokenizer, frame: Frame, limit: int | None, with_label: bool
    ) -> Example:
        """Put question and context into a row; too long a row loses the context's end.

        Raises:
            ValueError: If the answer does not stand in the context where the record says.
            LeftOutError: If there is no answer, or it is cut off.
        """
        context = text_in(record, self.text_pair)
        texts = [ids_of(text_in(record, self.text), tokenizer), ids_of(context, tokenizer)]
        row = frame.put(texts, limit, may_cut=[False, True])
        if not row.kept[1]:
            raise LeftOutError("the question leaves no room for the context")
        start, kept = row.starts[1], row.kept[1]
        answerable, offsets = np.zeros_like(row.input_ids), np.zeros((len(row.input_ids), 2), dtype=np.int64)
        answerable[start : start + kept] = 1
        characters = tokenizer.offsets(context)  # (tokens, 2)
        offsets[start : start + kept] = characters[:kept]
        arrays = {
            "input_ids": row.input_ids,
            "attention_mask": mask_of(row.input_ids),
            "token_type_ids": row.token_type_ids,
            "answerable": answerable,
            "offsets": offsets,
        }
        if with_label:
            first, stop = _answer(value_in(record, self.label), context)
            touched = np.flatnonzero((characters[:, 0] < stop) & (characters[:, 1] > first))  # tokens of the context
            if not len(touched):
                raise LeftOutError("the answer has no token")
            if touched[-1] >= kept:
                raise LeftOutError("the answer is cut off")
            arrays["labels"] = start + touched[[0, -1]]
        return Example(arrays, row.is_cut)


def _answer(answer: Any, context: str) -> tuple[int, int]:
    """Return the first character of an answer, and the one behind its last."""
    if not isinstance(answer, Mapping) or not {"text", "answer_start"} <= answer.keys():
        raise ValueError(f"an answer must give text and answer_start, got {shown(answer)}")
    text, start = answer["text"], answer["answer_start"]
    if isinstance(text, list) and isinstance(start, list):
        if not text or not start:
            raise LeftOutError("there is no answer")
        text, start = text[0], start[0]
    if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool) or not text or start < 0:
        raise ValueError(f"an answer must be a text and the number of its first character, got {shown(answer)}")
    if context[start : start + len(text)] != text:
        raise ValueError(
            f"the answer {shown(text)} does not stand at character {start} of the context, which has "
            f"{shown(context[start : start + len(text)])} there"
        )
    return start, start + len(text)
