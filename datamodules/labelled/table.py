"""Records with labels, from whatever the ``datasets`` library loads."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.arguments import require_kind, require_path, shown
from datamodules.files import refusing
from datamodules.sources.hugging_face import opens_files

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

    Raises:
        ValueError: If one is no text.
    """

    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None

    def __post_init__(self) -> None:
        require_path(path=self.path)
        require_kind(str, path=self.path, split=self.split)
        require_kind(str | None, name=self.name, revision=self.revision)

    def open(self) -> Any:
        """Load the records: a ``datasets.Dataset``, without columns that point to pictures and the like.

        Raises:
            ValueError: If that fails.
        """
        here = Path(self.path).expanduser()
        with self._refusing():
            is_there, is_file, is_saved = here.exists(), here.is_file(), (here / "state.json").is_file()
        if not is_there and (self.path.count("/") != 1 or here.suffix in (*_FORMATS, *_COMPRESSED)):
            raise ValueError(
                f"path={self.path!r} is no file or folder (looked from {Path.cwd()}), and no dataset of the hub, whose "
                f"names are OWNER/NAME."
            )
        # Imported here: it takes a second.
        import datasets

        with self._refusing():
            if is_saved:
                records = datasets.load_from_disk(str(here))
            elif is_file:
                suffix = Path(here.stem).suffix if here.suffix in _COMPRESSED else here.suffix
                if suffix not in _FORMATS:
                    raise ValueError(f"files end in one of {', '.join(_FORMATS)}")
                options = {"delimiter": "\t"} if suffix == ".tsv" else {}
                records = datasets.load_dataset(_FORMATS[suffix], data_files=str(here), split="train", **options)
            else:
                records = datasets.load_dataset(self.path, self.name, split=self.split, revision=self.revision)
            # They would be opened from wherever a record says.
            pointing = [name for name, feature in records.features.items() if opens_files(feature)]
            return records.remove_columns(pointing)

    def _refusing(self) -> AbstractContextManager[None]:
        return refusing(
            f"path={shown(self.path)} can't be loaded", f"Give a file or folder with records. Looked from {Path.cwd()}."
        )
