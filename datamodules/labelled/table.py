"""Records with labels, from whatever the ``datasets`` library loads."""

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.arguments import require_kind, require_path, shown
from datamodules.files import expand_paths, read_lines, read_text, refusing
from datamodules.sources.hugging_face import located, opens_files, saved_dataset

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
        if is_there and not is_saved:
            for file in expand_paths([str(here)]):
                if _format(file) == "json":
                    _check_json(file)
        # Imported here: it takes a second.
        import datasets

        with self._refusing():
            if is_saved:
                records = saved_dataset(here)
            elif is_file:
                kind = _format(here)
                if kind is None:
                    raise ValueError(f"files end in one of {', '.join(_FORMATS)}")
                options = {"delimiter": "\t"} if ".tsv" in here.suffixes[-2:] else {}
                records = datasets.load_dataset(kind, data_files=str(here), split="train", **options)
            else:
                records = datasets.load_dataset(located(self.path), self.name, split=self.split, revision=self.revision)
            # They would be opened from wherever a record says.
            pointing = [name for name, feature in records.features.items() if opens_files(feature)]
            return records.remove_columns(pointing)

    def _refusing(self) -> AbstractContextManager[None]:
        return refusing(
            f"path={shown(self.path)} can't be loaded", f"Give a file or folder with records. Looked from {Path.cwd()}."
        )


def _format(file: Path) -> str | None:
    """Name the format of a file; None: it is none of ours."""
    return _FORMATS.get(Path(file.stem).suffix if file.suffix in _COMPRESSED else file.suffix)


def _check_json(file: Path) -> None:
    """Refuse a file that is no JSON, or is nested so deeply that the library's parser would end the process."""
    place = str(file)
    try:
        for number, line, _ in read_lines(file, "utf-8"):
            place = f"{file}, line {number}"
            if line.strip():
                json.loads(line)
    except RecursionError:
        raise ValueError(
            f"{place}: lists or objects are nested too deeply. Correct the record or leave it out."
        ) from None
    except ValueError:  # one value on several lines, perhaps
        text = read_text(file, "utf-8")
        with refusing(f"{file} can't be loaded: it is neither JSON nor JSON Lines", "Correct the file."):
            json.loads(text)
