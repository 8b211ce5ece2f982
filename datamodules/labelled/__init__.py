"""Labelled text, for fine-tuning.

``table.py`` opens files and datasets, ``frame.py`` puts texts between special tokens and says what is cut; a file for
each kind of task says what a record becomes; ``batches.py`` pads, ``module.py`` puts it together. To add a task:
subclass ``Examples`` and name it by ``class_path``.
"""

from datamodules.labelled.examples import Examples
from datamodules.labelled.module import LabelledTextDataModule
from datamodules.labelled.multiple_choice import MultipleChoiceExamples
from datamodules.labelled.question_answering import QuestionAnsweringExamples
from datamodules.labelled.sequence import SequenceExamples
from datamodules.labelled.table import Table
from datamodules.labelled.token import TokenExamples

__all__ = [
    "Examples",
    "LabelledTextDataModule",
    "MultipleChoiceExamples",
    "QuestionAnsweringExamples",
    "SequenceExamples",
    "Table",
    "TokenExamples",
]
