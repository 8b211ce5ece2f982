"""Parquet files."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.arguments import shown
from datamodules.files import as_list, expand_paths, hash_files, refusing
from datamodules.sources.base import TextSource
from datamodules.sources.records import TextField

_BATCH_ROWS = 256  # few, because a document may be long


class Parquet(TextSource):
    """Parquet files, one document per row. Only the column with the text is read; the others may disagree.

    Args:
        paths: Files, folders (read recursively, without hidden files) and globs such as ``corpus/*.parquet``;
            one or a list.
        field: Name of the column that holds the text.
        on_bad_record: What to do with a row whose field is null: ``refuse`` it, naming file and row, or ``skip`` and
            count it. A file without such a column of strings is always refused.

    Raises:
        ValueError: If there is no path, or an argument means nothing.
    """

    def __init__(self, paths: list[str] | str, field: str = "text", on_bad_record: str = "refuse") -> None:
        TextField(field, on_bad_record)
        self.paths = as_list(paths)
        self.field = field
        self.on_bad_record = on_bad_record

    def documents(self) -> Iterator[str]:
        """Yield the text of each row."""
        # pyarrow itself, not the loader of `datasets`, which first copies the files to a cache of its own.
        field = TextField(self.field, self.on_bad_record)
        for file in expand_paths(self.paths):
            for number, value in enumerate(self._values(file), start=1):
                text = field.of({self.field: value}, f"{file}, row {number}")
                if text is not None:
                    yield text
        self.left_out = field.report("Parquet")

    def fingerprint(self) -> str:
        """Hash the files' bytes and the options."""
        return hash_files(expand_paths(self.paths), f"Parquet {self.field} {self.on_bad_record}")

    def num_documents_hint(self) -> int | None:
        """Count the rows, as the files' footers give them."""
        return sum(self._open(file).metadata.num_rows for file in expand_paths(self.paths))

    def _values(self, file: Path) -> Iterator[Any]:
        with self._open(file) as table, _refusing(file):
            for batch in table.iter_batches(_BATCH_ROWS, columns=[self.field]):
                yield from batch.column(0).to_pylist()

    def _open(self, file: Path) -> pq.ParquetFile:
        with _refusing(file):
            table = pq.ParquetFile(file)
            schema = table.schema_arrow
            kinds = [column.type for column in schema if column.name == self.field]
        if len(kinds) != 1:
            found = "several columns" if kinds else "no column"
            raise ValueError(
                f"{file}: {found} {self.field!r}, only {shown(schema.names)}. Set `field` to the one that holds the "
                "text."
            )
        kind = kinds[0].value_type if pa.types.is_dictionary(kinds[0]) else kinds[0]
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(
                f"{file}: column {self.field!r} holds {str(kind)[:200]}, but must hold strings. Set `field` to the one "
                "that holds the text."
            )
        return table


def _refusing(file: Path) -> AbstractContextManager[None]:
    return refusing(f"{file} is no whole Parquet file", "Copy or download it again, or leave it out.")
