"""Records with labels, from whatever the ``datasets`` library loads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FORMATS = {".jsonl": "json", ".json": "json", ".ndjson": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv"}
_COMPRESSED = (".gz", ".xz", ".zst", ".bz2")


@dataclass
class Table:
    """Records: a file, a folder, or a dataset of the Hugging Face hub.

    Args:
        path: A file in JSON Lines, Parquet or CSV format; a folder with such files, or one written by
            ``save_to_disk``; or a name on the hub.
        name: Configuration of a dataset that has several.
        split: The split of a folder or dataset, such as ``train`` or ``validation[:1000]``; a file is one split.
        revision: Version on the hub: a commit, tag or branch.
    """

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None

    def open(self) -> Any:
        """Load the records: a ``datasets.Dataset``.

        Raises:
            ValueError: If that fails.
        """
        here = Path(self.path).expanduser()
        if not here.exists() and (self.path.count("/") != 1 or here.suffix in (*_FORMATS, *_COMPRESSED)):
            raise ValueError(
                f"path={self.path!r} is no file or folder (looked from {Path.cwd()}), and no dataset of the hub, whose "
                f"names are OWNER/NAME."
            )
        # Imported here: it takes a second.
        import datasets

        try:
            if (here / "state.json").is_file():
                return datasets.load_from_disk(str(here))
            if here.is_file():
                suffix = Path(here.stem).suffix if here.suffix in _COMPRESSED else here.suffix
                if suffix not in _FORMATS:
                    raise ValueError(f"files end in one of {', '.join(_FORMATS)}")
                options = {"delimiter": "\t"} if suffix == ".tsv" else {}
                return datasets.load_dataset(_FORMATS[suffix], data_files=str(here), split="train", **options)
            return datasets.load_dataset(self.path, self.name, split=self.split, revision=self.revision)
        except (ValueError, OSError, ConnectionError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(f"path={self.path!r} can't be loaded: {error}. Looked from {Path.cwd()}.") from error
