"""The corpus that every machine has."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.files import hash_files
from datamodules.sources.base import TextSource


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
        self.left_out = []
        if num_skipped:
            self.left_out = [f"PythonStandardLibrary: left out {num_skipped} files that are not UTF-8."]
            rank_zero_info(self.left_out[0])

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
