"""Anything that the ``datasets`` library loads."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from datamodules.arguments import require_kind, require_path, shown
from datamodules.files import refusing
from datamodules.sources.base import TextSource
from datamodules.sources.records import TextField


class HuggingFaceDataset(TextSource):
    """A dataset of the Hugging Face hub, or a local folder that ``datasets`` reads, one document per record.

    Only the column with the text is read.

    Args:
        path: Name on the hub, OWNER/NAME; a folder with data files; or a folder written by ``save_to_disk``.
        name: Configuration of the dataset, if it has several.
        split: The split, such as ``train`` or ``train[:10%]``. A folder written by ``save_to_disk`` has one.
        field: Name of the column that holds the text.
        streaming: Whether records are fetched as they are read, instead of downloading the dataset first. What a
            streamed dataset holds can't be hashed: its cache goes by the arguments, so give a ``revision``.
        revision: Version on the hub: a commit, tag or branch.
        on_bad_record: What to do with a record whose field is null: ``refuse`` it, naming its number, or ``skip`` and
            count it.

    Raises:
        ValueError: If an argument means nothing.
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
        require_path(path=path)
        require_kind(str, split=split)
        require_kind(str | None, name=name, revision=revision)
        require_kind(bool, streaming=streaming)
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
        field = TextField(self.field, self.on_bad_record)
        for number, record in self._records(first, step):
            text = field.of(record, f"{self.path}, split {self.split}, record {number}")
            if text is not None:
                yield text
        self.left_out = field.report("HuggingFaceDataset")

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

    def _records(self, first: int, step: int) -> Iterator[tuple[int, Any]]:
        dataset = self._open()
        with self._refusing():
            if self.streaming:
                # Records, not texts, are counted: one that is left out still has its number.
                numbered = enumerate(dataset.skip(first), start=first)
                yield from ((number, record) for number, record in numbered if (number - first) % step == 0)
            else:
                yield from ((number, dataset[number]) for number in range(first, len(dataset), step))

    def __getstate__(self) -> dict[str, Any]:
        # A worker opens the dataset itself: a stream has connections.
        return {**self.__dict__, "_opened": None}

    def _open(self) -> Any:
        if self._opened is None:
            self._opened = self._load()
        return self._opened

    def _load(self) -> Any:
        path = located(self.path)
        with self._refusing():
            is_saved = (Path(path) / "state.json").is_file()
            dataset = saved_dataset(Path(path)) if is_saved else self._downloaded(path)
        if is_saved:
            dataset = part_of(dataset, self.split, self.path)
            if self.streaming:
                dataset = dataset.to_iterable_dataset()
        with self._refusing():
            columns, features = dataset.column_names, dataset.features or {}
        if columns is not None and self.field not in columns:
            raise ValueError(
                f"{self.path}: no column {self.field!r}, only {shown(columns)}. Set `field` to the one that holds the "
                "text."
            )
        if opens_files(features.get(self.field)):
            raise ValueError(
                f"{self.path}: column {self.field!r} holds {type(features[self.field]).__name__}, but must hold "
                "strings. Set `field` to the one that holds the text."
            )
        return dataset.select_columns([self.field])

    def _downloaded(self, path: str) -> Any:
        """Load what is no saved dataset; a field that is null in all of the first file is one of strings."""
        # Imported here: it takes a second, which sources of plain files need not wait for.
        import datasets

        options = {"streaming": self.streaming, "revision": self.revision}
        try:
            dataset = datasets.load_dataset(path, self.name, split=self.split, **options)
            features = dataset.features
        except datasets.exceptions.DatasetGenerationError:
            # The library takes the type of a column from the first file, and fails at the next that has another.
            whole = re.split(r"[\[+]", self.split)[0]
            features = datasets.load_dataset(
                path, self.name, split=whole, streaming=True, revision=self.revision
            ).features
            if not _is_null(features, self.field):
                raise
        if not _is_null(features, self.field):
            return dataset
        features = datasets.Features({**features, self.field: datasets.Value("string")})
        return datasets.load_dataset(path, self.name, split=self.split, features=features, **options)

    def _refusing(self) -> AbstractContextManager[None]:
        return refusing(
            f"path={shown(self.path)}, name={shown(self.name)}, split={shown(self.split)} names no dataset that can be "
            "loaded",
            "Give the name of a dataset on the hub (which needs the network) or a folder with data files.",
        )


def located(path: str) -> str:
    """Return what ``datasets`` is asked for: a folder by its whole path, or a name on the hub.

    Anything else it may take for a kind of files, such as ``text`` or ``pandas``, and then it reads those that lie in
    the working directory; some of its versions unpickle them.

    Args:
        path: As a user or a file writes it.

    Raises:
        ValueError: If it is neither.
    """
    here = Path(path).expanduser()
    with refusing(f"path={shown(path)} can't be looked for", "Give a folder, or a name on the hub."):
        is_folder = here.is_dir()
    if not is_folder and path.count("/") != 1:
        raise ValueError(
            f"path={shown(path)} is no folder (looked from {Path.cwd()}), and no dataset of the hub, whose names are "
            "OWNER/NAME."
        )
    return str(here.absolute()) if is_folder else path


def saved_dataset(folder: Path) -> Any:
    """Open a folder written by ``save_to_disk``: a ``datasets.Dataset``.

    Its files are mapped into memory as they are, so they are gone through first: wrong offsets would end the process.
    """
    import datasets

    dataset = datasets.load_from_disk(str(folder))
    dataset.data.validate(full=True)
    return dataset


def part_of(dataset: Any, split: str, path: str) -> Any:
    """Take the part of a saved dataset that ``split`` names.

    Args:
        dataset: A ``datasets.Dataset``. It has one split; one that has no name goes by the default, ``train``.
        split: The split, or slices of it, such as ``train[:10%]`` or ``train[:5]+train[-5:]``.
        path: Where it lies, for messages.

    Raises:
        ValueError: If it has no such split, or the slice is none.
    """
    import datasets

    name = str(dataset.split) if dataset.split is not None else "train"
    with refusing(
        f"path={shown(path)} is a saved dataset with the one split {name!r}, and split={shown(split)} is no part of it",
        f"Set `split` to {name!r} or a slice of it, such as '{name}[:10%]'.",
    ):
        # the name of a saved part, such as "train[:50]", is taken whole
        if split == name:
            return dataset
        parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(dataset)})
        numbers = [number for part in parts for number in range(part.from_, part.to)]
        return dataset.select(numbers)


def _is_null(features: Any, field: str) -> bool:
    """Say whether the library found nothing but nulls in a column."""
    return getattr((features or {}).get(field), "dtype", None) == "null"


def opens_files(feature: Any) -> bool:
    """Say whether reading a column opens whatever file or address its records name, as for pictures.

    Args:
        feature: What ``datasets`` says of the column.
    """
    if isinstance(feature, dict):
        return any(map(opens_files, feature.values()))
    if hasattr(feature, "feature"):  # a list of them
        return opens_files(feature.feature)
    return hasattr(feature, "decode_example") and type(feature).__name__ != "Json"
