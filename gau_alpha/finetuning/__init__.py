"""GAU-α with heads for tasks that are fine-tuned: plain torch, one head per file.

To add one: subclass ``HeadedModel`` (see ``base.py``), and name it by ``class_path`` under ``model.head`` in a YAML; no
registration is needed. ``tests/gau_alpha/finetuning/test_heads.py`` says what holds for all of them.
"""

from gau_alpha.finetuning.base import HeadedModel, Outcome
from gau_alpha.finetuning.multiple_choice import GAUAlphaForMultipleChoice
from gau_alpha.finetuning.question_answering import GAUAlphaForQuestionAnswering
from gau_alpha.finetuning.sequence_classification import GAUAlphaForSequenceClassification
from gau_alpha.finetuning.token_classification import GAUAlphaForTokenClassification

__all__ = [
    "GAUAlphaForMultipleChoice",
    "GAUAlphaForQuestionAnswering",
    "GAUAlphaForSequenceClassification",
    "GAUAlphaForTokenClassification",
    "HeadedModel",
    "Outcome",
]
