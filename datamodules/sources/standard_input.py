"""Text from standard input."""

import hashlib
import sys
from collections.abc import Iterator

from datamodules.sources.base import TextSource


class StandardInput(TextSource):
    """Standard input as UTF-8, one document per line: document n is line n. It is read whole, once, when first used.

    A blank line is a document without text: nothing is trained on it, and what is predicted for it stands in its place.

    For one process: others have no standard input to read.

    Raises:
        ValueError: When it is used, if it has no text or is no UTF-8.
    """

    def __init__(self) -> None:
        self._lines: list[str] | None = None

    def documents(self) -> Iterator[str]:
        """Yield the lines."""
        return iter(self._read())

    def fingerprint(self) -> str:
        """Hash the lines."""
        return hashlib.sha256("\n".join(["StandardInput", *self._read()]).encode()).hexdigest()

    def num_documents_hint(self) -> int | None:
        """Count the lines."""
        return len(self._read())

    def _read(self) -> list[str]:
        if self._lines is None:
            try:
                text = sys.stdin.buffer.read().decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"Standard input is not UTF-8: {error}.") from error
            # what follows the last line's end is no line
            self._lines = [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]
        if not any(map(str.strip, self._lines)):
            raise ValueError("Standard input has no text: give a document per line.")
        return self._lines
