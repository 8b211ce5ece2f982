"""A run and its folder: its id, who works in the folder, and which files there are the run's."""

import json
import re
import uuid
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gau_alpha.checkpoints.atomic_write import remove_unfinished, write_atomic
from gau_alpha.checkpoints.identity import RUN_KEY
from gau_alpha.checkpoints.lock import Lock
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import shown

FILES = "run_files.json"
"""The file of a run's folder with its id and the files that it has made."""

LOCK = "run.lock"
"""The file of a run's folder that its process locks."""

_ID = re.compile(r"[0-9a-f]{32}")


def run_id_of(checkpoint: Mapping[str, Any]) -> str | None:
    """Say which run saved a checkpoint; None if it says nothing that could be an id.

    Args:
        checkpoint: As read.
    """
    run = checkpoint.get(RUN_KEY)
    found = run.get("id") if isinstance(run, dict) else None
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


class RunFolder:
    """A folder that holds one run at most.

    Args:
        path: The folder; it need not exist.

    Attributes:
        run_id: 32 hexadecimal digits; None as long as the folder holds no run.
        files: What the run has made, by names relative to the folder; only these are ever removed.

    Raises:
        ValueError: If the record is not what a run writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id: str | None = None
        self.files: list[str] = []
        self._lock = Lock(path / LOCK)
        self._read()

    def claim(self) -> None:
        """Keep other processes out until ``release``, or until this process ends.

        Raises:
            ValueError: If another process works there: names its host and number.
        """
        self._lock.acquire("Wait until it has ended, or give another version: --trainer.logger.version NAME.")
        self._read()  # it may have been written meanwhile

    def release(self) -> None:
        """Let others in."""
        self._lock.release()

    def begin(self) -> str:
        """Let a run begin here, or go on.

        Returns:
            Its id.
        """
        if self.run_id is None:
            self.run_id = uuid.uuid4().hex
            self._write()
        return self.run_id

    def add(self, *paths: Path) -> None:
        """Remember files of the run; those outside of the folder are left to their owner.

        Args:
            *paths: They need not exist yet.
        """
        here = self.path.absolute()
        inside = [path.absolute() for path in paths]
        names = [path.relative_to(here).as_posix() for path in inside if path.is_relative_to(here)]
        new = [name for name in dict.fromkeys(names) if name not in (*self.files, FILES) and _is_below(name)]
        if new:
            self.files += new
            self._write()

    def lists(self, path: Path) -> bool:
        """Say whether a file is the run's."""
        return path.absolute() in [(self.path / name).absolute() for name in self.files]

    def remove_run(self) -> list[Path]:
        """Remove the run's files, then the folders that this leaves empty; links are not followed.

        Returns:
            The files that were removed.
        """
        self.remove_unfinished()
        found = [path for name in self.files if (path := self._own(name)) is not None]
        for path in found:
            path.unlink()
        folders = {folder for path in found for folder in path.parents if folder.is_relative_to(self.path)}
        for folder in sorted(folders - {self.path}, key=lambda folder: len(folder.parts), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        (self.path / FILES).unlink(missing_ok=True)
        self.run_id, self.files = None, []
        return found

    def remove_unfinished(self) -> list[Path]:
        """Remove what killed processes of the run were writing; returns it."""
        places = [self.path / FILES, *(self.path / name for name in self.files if self._is_reached(name))]
        return remove_unfinished(places)

    def _read(self) -> None:
        record = self.path / FILES
        if not record.exists():
            return
        stored = read_json(record)
        run_id, files = (stored.get("id"), stored.get("files")) if isinstance(stored, dict) else (None, None)
        if not isinstance(run_id, str) or not _ID.fullmatch(run_id):
            raise ValueError(f"{record}: id must be 32 hexadecimal digits, got {shown(run_id)}. Remove that file.")
        if not isinstance(files, list) or not all(isinstance(name, str) and _is_below(name) for name in files):
            raise ValueError(f"{record}: files must list names below its folder, got {shown(files)}.")
        self.run_id, self.files = run_id, files

    def _own(self, name: str) -> Path | None:
        path = self.path / name
        return path if self._is_reached(name) and path.is_file() and not path.is_symlink() else None

    def _is_reached(self, name: str) -> bool:
        """Say whether no folder on the way is a link."""
        between = [self.path / folder for folder in PurePosixPath(name).parents if folder != PurePosixPath(".")]
        return not any(folder.is_symlink() for folder in between)

    def _write(self) -> None:
        text = json.dumps({"id": self.run_id, "files": self.files}, indent=1) + "\n"
        write_atomic(self.path / FILES, lambda path: path.write_text(text, encoding="utf-8"))


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name
