"""Plain text files."""

from collections.abc import Iterator

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.arguments import LARGEST, require_at_least, require_kind
from datamodules.files import (
    MAX_CHARACTERS,
    as_list,
    check_encoding,
    estimate_lines,
    expand_paths,
    hash_files,
    read_lines,
    read_text,
)
from datamodules.sources.base import TextSource


class TextFiles(TextSource):
    r"""Text files, one document per file or per line. ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed.

    A byte order mark is dropped. Whole files keep their line ends as they are, ``\r\n`` too.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``corpus/**/*.txt``;
            one or a list.
        encoding: Encoding of all the files.
        per_line: Whether every line that is not blank is a document of its own.
        max_characters: Most characters of a document; a longer one is refused, since it may fill the memory.

    Raises:
        ValueError: If there is no path, or an argument means nothing.
    """

    def __init__(
        self,
        paths: list[str] | str,
        encoding: str = "utf-8",
        per_line: bool = False,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        check_encoding(encoding)
        require_at_least(1, LARGEST, max_characters=max_characters)
        require_kind(bool, per_line=per_line)
        self.paths = as_list(paths)
        self.encoding = encoding
        self.per_line = per_line
        self.max_characters = max_characters

    def documents(self) -> Iterator[str]:
        """Yield the content of each file, or each line."""
        if self.per_line:
            return self._lines()
        return self.every(0, 1)

    def fingerprint(self) -> str:
        """Hash the files' bytes and the options."""
        options = f"TextFiles {self.encoding}{' per line' if self.per_line else ''}"
        return hash_files(expand_paths(self.paths), options)

    def num_documents_hint(self) -> int | None:
        """Count the files, or guess the number of lines."""
        files = expand_paths(self.paths)
        return estimate_lines(files) if self.per_line else len(files)

    def every(self, first: int, step: int) -> Iterator[str]:
        """Read only the files that are asked for."""
        if self.per_line:
            return super().every(first, step)
        return (read_text(file, self.encoding, self.max_characters) for file in expand_paths(self.paths)[first::step])

    def _lines(self) -> Iterator[str]:
        num_blank = 0
        for file in expand_paths(self.paths):
            for _, line, _ in read_lines(file, self.encoding, self.max_characters):
                if line.strip():
                    yield line
                else:
                    num_blank += 1
        self.left_out = [f"TextFiles: left out {num_blank} blank lines."] if num_blank else []
        for message in self.left_out:
            rank_zero_info(message)
