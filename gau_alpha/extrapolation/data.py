"""What is known of a data module: its vocabulary, the length of its rows and documents to evaluate on."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gau_alpha.vocabulary import Vocabulary


class EvaluationData(Protocol):
    """What a data module offers that models can be evaluated on."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of its tokenizer."""
        ...

    train_length: int
    """Tokens per training row."""

    def evaluation_documents(self) -> Sequence[np.ndarray]:
        """Give whole documents, (tokens,) integers each, never truncated, in a fixed order."""
        ...
