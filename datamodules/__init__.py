"""Corpora, tokenizers, rows and masks.

To add a source: subclass ``datamodules.sources.TextSource``; to add a tokenizer: subclass
``datamodules.tokenizers.Tokenizer``; to add a way to make rows: subclass ``datamodules.rows.RowMaker``; to add a
masking rule: subclass ``datamodules.masking.Masking``; to add a kind of labelled task: subclass
``datamodules.labelled.Examples``. Name the class by ``class_path`` in a YAML; no registration is
needed.
"""

from datamodules.labelled import (
    LabelledTextDataModule,
    MultipleChoiceExamples,
    QuestionAnsweringExamples,
    SequenceExamples,
    TokenExamples,
)
from datamodules.masking import SpanMasking, TokenMasking, WholeWordMasking
from datamodules.rows import Blocks, Packed, VariableLength
from datamodules.sources import (
    Fasta,
    HuggingFaceDataset,
    JsonLines,
    Mixture,
    Parquet,
    PythonStandardLibrary,
    StandardInput,
    Synthetic,
    TextFiles,
)
from datamodules.streaming import StreamingTextDataModule
from datamodules.text import TextDataModule
from datamodules.tokenizers import ByteTokenizer, CharacterTokenizer, TokenizerFile, WordPieceVocab

__all__ = [
    "Blocks",
    "ByteTokenizer",
    "CharacterTokenizer",
    "Fasta",
    "HuggingFaceDataset",
    "JsonLines",
    "LabelledTextDataModule",
    "Mixture",
    "MultipleChoiceExamples",
    "Packed",
    "Parquet",
    "PythonStandardLibrary",
    "QuestionAnsweringExamples",
    "SequenceExamples",
    "SpanMasking",
    "StandardInput",
    "StreamingTextDataModule",
    "Synthetic",
    "TextDataModule",
    "TextFiles",
    "TokenExamples",
    "TokenMasking",
    "TokenizerFile",
    "VariableLength",
    "WholeWordMasking",
    "WordPieceVocab",
]
