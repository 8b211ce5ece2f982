"""Sequences of DNA, RNA or protein."""

import re
from collections.abc import Iterator

from datamodules.arguments import LARGEST, require_at_least
from datamodules.files import MAX_CHARACTERS, as_list, expand_paths, hash_files, read_lines
from datamodules.sources.base import TextSource

_LETTERS = re.compile(r"[A-Z*-]*")


class Fasta(TextSource):
    """FASTA files, one document per record: its sequence in capitals, without the header and without line ends.

    Lower case marks repeats in many genomes; it is folded away. ``N`` (unknown base) and other codes are kept.
    ``.gz``, ``.bz2``, ``.xz`` and ``.zst`` are decompressed.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``genomes/*.fa.gz``;
            one or a list.
        max_characters: Most characters of a line; a longer one is refused, since it may fill the memory.

    Raises:
        ValueError: If there is no path, or the number is out of range.
    """

    def __init__(self, paths: list[str] | str, max_characters: int = MAX_CHARACTERS) -> None:
        require_at_least(1, LARGEST, max_characters=max_characters)
        self.paths = as_list(paths)
        self.max_characters = max_characters

    def documents(self) -> Iterator[str]:
        """Yield the sequences.

        Raises:
            ValueError: If a file is no FASTA.
        """
        for file in expand_paths(self.paths):
            pieces: list[str] | None = None  # None before the first header
            for number, line, _ in read_lines(file, "ascii", self.max_characters):
                line = line.strip()
                if line.startswith(">"):
                    if pieces is not None:
                        yield "".join(pieces)
                    pieces = []
                elif line and not line.startswith(";"):  # old files have comments
                    line = line.upper()
                    if pieces is None:
                        raise ValueError(
                            f"{file}, line {number}: a sequence without a header. Every record of a FASTA file begins "
                            "with a line '>name'; use TextFiles for plain sequences."
                        )
                    stop = _LETTERS.match(line).end()  # type: ignore[union-attr]  # matches at least nothing
                    if stop < len(line):
                        raise ValueError(
                            f"{file}, line {number}: {line[stop]!r} is no letter of a sequence. Sequences are made of "
                            "A to Z, '*' and '-'; correct the line."
                        )
                    pieces.append(line)
            if pieces is not None:
                yield "".join(pieces)

    def fingerprint(self) -> str:
        """Hash the files' bytes."""
        return hash_files(expand_paths(self.paths), "Fasta")
