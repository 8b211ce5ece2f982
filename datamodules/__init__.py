"""Corpora, tokenizers, rows and masks.

To add a source: subclass ``datamodules.sources.TextSource``; to add a tokenizer: subclass
``datamodules.tokenizers.Tokenizer``; to add a masking rule: subclass ``datamodules.masking.Masking``. Name the class
by ``class_path`` in a YAML; no registration is needed.
"""

from datamodules.masking import TokenMasking
from datamodules.sources import JsonLines, PythonStandardLibrary, TextFiles
from datamodules.text import TextDataModule
from datamodules.tokenizers import ByteTokenizer, TokenizerFile

__all__ = [
    "ByteTokenizer",
    "JsonLines",
    "PythonStandardLibrary",
    "TextDataModule",
    "TextFiles",
    "TokenMasking",
    "TokenizerFile",
]
