"""Where text comes from.

A source yields documents one by one and can say what it would yield without yielding it (``fingerprint``); it knows
nothing of tokens. A new source is a subclass of ``TextSource`` with these two methods, in a file of its own;
``tests/datamodules/test_sources.py`` has the list of classes that every general test runs over.
"""

from datamodules.sources.base import TextSource
from datamodules.sources.fasta import Fasta
from datamodules.sources.hugging_face import HuggingFaceDataset
from datamodules.sources.json_lines import JsonLines
from datamodules.sources.mixture import Mixture
from datamodules.sources.parquet import Parquet
from datamodules.sources.python_standard_library import PythonStandardLibrary
from datamodules.sources.standard_input import StandardInput
from datamodules.sources.synthetic import Synthetic
from datamodules.sources.text_files import TextFiles

__all__ = [
    "Fasta",
    "HuggingFaceDataset",
    "JsonLines",
    "Mixture",
    "Parquet",
    "PythonStandardLibrary",
    "StandardInput",
    "Synthetic",
    "TextFiles",
    "TextSource",
]
