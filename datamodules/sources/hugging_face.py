"""Anything that the ``datasets`` library loads."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datamodules.sources.base import TextSource
from datamodules.sources.records import TextField


class HuggingFaceDataset(TextSource):
    """A dataset of the Hugging Face hub, or a local folder that ``datasets`` reads, one document per record.

    Only the column with the text is read.

    Args:
        path: Name on the hub, a folder with data files, or a folder written by ``save_to_disk``.
        name: Configuration of the dataset, if it has several.
        split: The split, such as ``train`` or ``train[:10%]``.
        field: Name of the column that holds the text.
        streaming: Whether records are fetched as they are read, instead of downloading the dataset first. What a
            streamed dataset holds can't be hashed: its cache goes by the arguments, so give a ``revision``.
        revision: Version on the hub: a commit, tag or branch.
        on_bad_record: What to do with a record whose field is null: ``refuse`` it, naming its number, or ``skip`` and
            count it.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        split: str = "train",
        field: str = "text",
        streaming: bool = False,
        revision: str | None = None,
        on_bad_record: str = "refuse",
    ) -> None:
        TextField(field, on_bad_record)
        self.path = path
        self.name = name
        self.split = split
        self.field = field
        self.streaming = streaming
        self.revision = revision
        self.on_bad_record = on_bad_record
        self._opened: Any = None

    def documents(self) -> Iterator[str]:
        """Yield the text of each record."""
        return self.every(0, 1)

    def every(self, first: int, step: int) -> Iterator[str]:
        """Skip to the first record by the library's own means."""
        dataset = self._open()
        field = TextField(self.field, self.on_bad_record)
        if self.streaming:
            # Records, not texts, are counted: one that is left out still has its number.
            numbered = enumerate(dataset.skip(first), start=first)
            records = ((number, record) for number, record in numbered if (number - first) % step == 0)
        else:
            records = ((number, dataset[number]) for number in range(first, len(dataset), step))
        for number, record in records:
            text = field.of(record, f"{self.path}, split {self.split}, record {number}")
            if text is not None:
                yield text
        field.report("HuggingFaceDataset")

    def fingerprint(self) -> str:
        """Hash the library's own fingerprint of the data and the options."""
        parts: list[str | None] = [self.field, self.on_bad_record]
        if self.streaming:
            parts += [self.path, self.name, self.split, self.revision]
        else:
            parts += [self._open()._fingerprint]
        return hashlib.sha256(f"HuggingFaceDataset {json.dumps(parts)}".encode()).hexdigest()

    def num_documents_hint(self) -> int | None:
        """Count the records, where they are all there."""
        return None if self.streaming else len(self._open())

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens the dataset itself: a stream has connections.
        return {**self.__dict__, "_opened": None}

    def _open(self) -> Any:
        if self._opened is None:
            self._opened = self._load()
        return self._opened

    def _load(self) -> Any:
        # Imported here: it takes a second, which sources of plain files need not wait for.
        import datasets

        if (Path(self.path).expanduser() / "state.json").is_file():
            dataset = datasets.load_from_disk(str(Path(self.path).expanduser()))
            if self.streaming:
                dataset = dataset.to_iterable_dataset()
        else:
            try:
                dataset = datasets.load_dataset(
                    self.path, self.name, split=self.split, streaming=self.streaming, revision=self.revision
                )
            except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
                what = f"path={self.path!r}, name={self.name!r}, split={self.split!r}"
                raise ValueError(
                    f"{what} names no dataset that can be loaded ({type(error).__name__}: {error}). Give the name of "
                    "a dataset on the hub (which needs the network) or a folder with data files."
                ) from None
        if dataset.column_names is not None and self.field not in dataset.column_names:
            raise ValueError(
                f"{self.path}: no column {self.field!r}, only {dataset.column_names}. Set `field` to the one that "
                "holds the text."
            )
        return dataset.select_columns([self.field])
