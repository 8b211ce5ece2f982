"""Plain text files."""

from collections.abc import Iterator

from datamodules.arguments import require_kind
from datamodules.files import as_list, check_encoding, estimate_lines, expand_paths, hash_files, read_lines, read_text
from datamodules.sources.base import TextSource


class TextFiles(TextSource):
    r"""Text files, one document per file or per line. ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed.

    A byte order mark is dropped. Whole files keep their line ends as they are, ``\r\n`` too.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``corpus/**/*.txt``;
            one or a list.
        encoding: Encoding of all the files.
        per_line: Whether every line that is not blank is a document of its own.

    Raises:
        ValueError: If there is no path, or an argument means nothing.
    """

    def __init__(self, paths: list[str] | str, encoding: str = "utf-8", per_line: bool = False) -> None:
        check_encoding(encoding)
        require_kind(bool, per_line=per_line)
        self.paths = as_list(paths)
        self.encoding = encoding
        self.per_line = per_line

    def documents(self) -> Iterator[str]:
        """Yield the content of each file, or each line."""
        for file in expand_paths(self.paths):
            if self.per_line:
                yield from (line for _, line, _ in read_lines(file, self.encoding) if line.strip())
            else:
                yield read_text(file, self.encoding)

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
        return (read_text(file, self.encoding) for file in expand_paths(self.paths)[first::step])
