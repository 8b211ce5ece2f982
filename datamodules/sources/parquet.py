"""Parquet files."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from datamodules.files import as_list, expand_paths, hash_files
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
            number = 0
            with self._open(file) as table:
                for batch in table.iter_batches(_BATCH_ROWS, columns=[self.field]):
                    for value in batch.column(0):
                        number += 1
                        text = field.of({self.field: value.as_py()}, f"{file}, row {number}")
                        if text is not None:
                            yield text
        field.report("Parquet")

    def fingerprint(self) -> str:
        """Hash the files' bytes and the options."""
        return hash_files(expand_paths(self.paths), f"Parquet {self.field} {self.on_bad_record}")

    def num_documents_hint(self) -> int | None:
        """Count the rows, as the files' footers give them."""
        return sum(pq.read_metadata(file).num_rows for file in expand_paths(self.paths))

    def _open(self, file: Path) -> pq.ParquetFile:
        try:
            table = pq.ParquetFile(file)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(
                f"{file} is no whole Parquet file ({error}). Copy or download it again, or leave it out."
            ) from None
        schema = table.schema_arrow
        if self.field not in schema.names:
            raise ValueError(
                f"{file}: no column {self.field!r}, only {schema.names}. Set `field` to the one that holds the text."
            )
        kind = schema.field(self.field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise ValueError(
                f"{file}: column {self.field!r} holds {kind}, but must hold strings. Set `field` to the one that "
                "holds the text."
            )
        return table
