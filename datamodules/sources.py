"""Where text comes from.

A source yields documents one by one and can say what it would yield without yielding it (``fingerprint``); it knows
nothing of tokens. A new source is a subclass with these two methods; ``tests/datamodules/test_sources.py`` has the
list of classes that every general test runs over.
"""

import codecs
import json
import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.files import decode_bytes, expand_paths, hash_files


class TextSource(ABC):
    """A corpus: documents in a fixed order."""

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """Yield the documents, in the same order every time, without holding them all."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash everything that decides what ``documents`` yields: contents and options, no paths, no times."""

    def num_documents_hint(self) -> int | None:
        """Guess the number of documents for the progress bar; None where a guess is not cheap."""
        return None


class TextFiles(TextSource):
    """Text files, one document per file.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``corpus/**/*.txt``;
            one or a list.
        encoding: Encoding of all the files.
    """

    def __init__(self, paths: list[str] | str, encoding: str = "utf-8") -> None:
        try:
            codecs.lookup(encoding)
        except LookupError:
            raise ValueError(
                f"encoding={encoding!r} is no encoding that Python knows. Use a name such as 'utf-8' or 'latin-1'."
            ) from None
        self.paths = _as_list(paths)
        self.encoding = encoding

    def documents(self) -> Iterator[str]:
        """Yield the content of each file."""
        for file in expand_paths(self.paths):
            yield decode_bytes(file.read_bytes(), self.encoding, file)

    def fingerprint(self) -> str:
        """Hash the files' bytes and the encoding."""
        return hash_files(expand_paths(self.paths), f"TextFiles {self.encoding}")

    def num_documents_hint(self) -> int | None:
        """Count the files."""
        return len(expand_paths(self.paths))


class JsonLines(TextSource):
    """Files in JSON Lines format (UTF-8), one document per line. Blank lines are skipped.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``corpus/*.jsonl``;
            one or a list.
        field: Name of the field that holds the text.
    """

    def __init__(self, paths: list[str] | str, field: str = "text") -> None:
        self.paths = _as_list(paths)
        self.field = field

    def documents(self) -> Iterator[str]:
        """Yield the text of each line."""
        # Read line by line and not by the loader of `datasets`, whose errors name neither file nor line.
        for file in expand_paths(self.paths):
            first_byte = 0
            with file.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    text = decode_bytes(line, "utf-8", file, first_byte)
                    first_byte += len(line)
                    if text.strip():
                        yield self._text_of(text, f"{file}, line {number}")

    def fingerprint(self) -> str:
        """Hash the files' bytes and the name of the field."""
        return hash_files(expand_paths(self.paths), f"JsonLines {self.field}")

    def _text_of(self, line: str, place: str) -> str:
        try:
            record: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place}: not JSON ({error.msg} at column {error.colno}). Every line must be one JSON object."
            ) from None
        if not isinstance(record, dict):
            raise ValueError(f"{place}: a JSON {type(record).__name__}, but every line must be one JSON object.")
        if self.field not in record:
            raise ValueError(
                f"{place}: no field {self.field!r}, only {sorted(record)}. Set `field` to the one that holds the text."
            )
        text = record[self.field]
        if not isinstance(text, str):
            raise ValueError(
                f"{place}: field {self.field!r} holds a {type(text).__name__}, but must hold a string. "
                "Set `field` to the one that holds the text, or correct the line."
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{place}: field {self.field!r} has half of a surrogate pair at character {error.start}, "
                "which is no text. Correct the line."
            ) from None
        return text


class PythonStandardLibrary(TextSource):
    """The Python standard library's own source code, about 12 MB: a corpus that every machine has, without a network.

    One document per ``.py`` file; test suites and installed packages are left out. Another version of Python
    is another corpus.
    """

    _LEFT_OUT = frozenset({"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"})

    def documents(self) -> Iterator[str]:
        """Yield the modules in the order of their paths."""
        num_skipped = 0
        for file in self._files():
            try:
                document = file.read_bytes().decode("utf-8")
            except UnicodeDecodeError:  # a few modules are kept in old encodings on purpose
                num_skipped += 1
                continue
            yield document
        if num_skipped:
            rank_zero_info(f"PythonStandardLibrary: left out {num_skipped} files that are not UTF-8.")

    def fingerprint(self) -> str:
        """Hash the modules' bytes."""
        return hash_files(self._files(), "PythonStandardLibrary")

    def num_documents_hint(self) -> int | None:
        """Count the modules."""
        return len(self._files())

    def _files(self) -> list[Path]:
        root = Path(sysconfig.get_path("stdlib"))
        files = sorted(
            file.relative_to(root)
            for file in root.rglob("*.py")
            if not self._LEFT_OUT.intersection(file.relative_to(root).parts)
        )
        if not files:
            raise ValueError(
                f"This Python keeps no source files in {root}. Use another Python, or TextFiles with texts of your own."
            )
        return [root / file for file in files]


def _as_list(paths: list[str] | str) -> list[str]:
    paths = [paths] if isinstance(paths, str) else list(paths)
    if not paths:
        raise ValueError("paths=[] names no file. Give at least one file, folder or glob.")
    return paths
