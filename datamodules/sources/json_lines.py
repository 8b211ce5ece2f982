"""JSON Lines."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from datamodules.arguments import LARGEST, require_at_least
from datamodules.files import (
    MAX_CHARACTERS,
    as_list,
    check_encoding,
    estimate_lines,
    expand_paths,
    hash_files,
    read_lines,
)
from datamodules.sources.base import TextSource
from datamodules.sources.records import TextField


class JsonLines(TextSource):
    """Files in JSON Lines format, one document per line. Blank lines are skipped, other fields are not looked at.

    ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``corpus/*.jsonl``;
            one or a list.
        field: Name of the field that holds the text.
        encoding: Encoding of all the files.
        on_bad_record: What to do with a record whose field is missing or holds no text: ``refuse`` it, naming file
            and line, or ``skip`` and count it; so with a record that is nested too deeply or has too long an integer
            for Python. A line that is no JSON object is always refused.
        max_characters: Most characters of a line; a longer one is refused, since it may fill the memory.

    Raises:
        ValueError: If there is no path, or an argument means nothing.
    """

    def __init__(
        self,
        paths: list[str] | str,
        field: str = "text",
        encoding: str = "utf-8",
        on_bad_record: str = "refuse",
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        check_encoding(encoding)
        require_at_least(1, LARGEST, max_characters=max_characters)
        TextField(field, on_bad_record)
        self.paths = as_list(paths)
        self.field = field
        self.encoding = encoding
        self.on_bad_record = on_bad_record
        self.max_characters = max_characters

    def documents(self) -> Iterator[str]:
        """Yield the text of each line."""
        return self.every(0, 1)

    def every(self, first: int, step: int) -> Iterator[str]:
        """Parse only the lines that are asked for; lines are counted, whether or not they are left out."""
        # Read line by line and not by the loader of `datasets`, whose errors name neither file nor line, and which
        # refuses files whose other fields disagree.
        field = TextField(self.field, self.on_bad_record)
        record = -1
        for file in expand_paths(self.paths):
            for number, line, is_ended in read_lines(file, self.encoding, self.max_characters):
                if not line.strip():
                    continue
                record += 1
                if record >= first and (record - first) % step == 0:
                    place = f"{file}, line {number}"
                    try:
                        parsed = _parse(line, place, is_ended)
                    except _TooMuchError as error:
                        field.leave_out(f"{place}: {error}. Correct the record", f"that can't be read: {error}")
                        continue
                    text = field.of(parsed, place)
                    if text is not None:
                        yield text
        self.left_out = field.report("JsonLines")

    def fingerprint(self) -> str:
        """Hash the files' bytes and the options."""
        options = [self.field, self.encoding, self.on_bad_record]
        return hash_files(expand_paths(self.paths), f"JsonLines {' '.join(options)}")

    def num_documents_hint(self) -> int | None:
        """Guess from the size of the files and the length of the first lines."""
        return estimate_lines(expand_paths(self.paths))


class _TooMuchError(Exception):
    """Python reads no such JSON."""


def _parse(line: str, place: str, is_ended: bool) -> dict[str, Any]:
    try:
        record: Any = json.loads(line)
    except json.JSONDecodeError as error:
        cut = "" if is_ended else " The file ends in the middle of this line, as after an interrupted copy."
        raise ValueError(
            f"{place}: not JSON ({error.msg} at column {error.colno}). Every line must be one JSON object.{cut}"
        ) from None
    except RecursionError:
        raise _TooMuchError("lists or objects are nested too deeply") from None
    except ValueError:
        raise _TooMuchError(f"an integer has more than {sys.get_int_max_str_digits()} digits") from None
    if not isinstance(record, dict):
        raise ValueError(f"{place}: a JSON {type(record).__name__}, but every line must be one JSON object.")
    return record
