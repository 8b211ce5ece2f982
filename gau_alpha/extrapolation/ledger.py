"""Finished measurements, each kept in a file as soon as it is known, so that an interrupted evaluation can go on."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from gau_alpha.extrapolation.measurement import Measurement
from gau_alpha.files import write_whole
from gau_alpha.untrusted.printable import printable
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import shown

_IDENTITY = "identity.json"


class Ledger:
    """A folder with the finished measurements of one evaluation.

    A measurement is None where memory ran out, which need not be found out again. Only the process that has rank 0
    touches the folder.

    Args:
        folder: Created with the first measurement; gone after ``close``.
        identity: Plain data that says what is evaluated: checkpoints, data, options. Measurements of another identity
            are never mixed in.

    Raises:
        ValueError: If the folder holds measurements of another evaluation, naming what differs, or files that are no
            measurements, naming file and field.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))
        self._known: dict[tuple[str, int], Measurement | None] = {}
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):  # a link may lead anywhere
            raise ValueError(f"{folder} is not a folder: finished measurements can't be kept there. Remove it.")
        if (folder / _IDENTITY).exists():
            self._read()

    def known(self) -> dict[tuple[str, int], Measurement | None]:
        """Measurements by (contender, length in tokens)."""
        return dict(self._known)

    def add(self, name: str, length: int, measurement: Measurement | None) -> None:
        """Keeps a measurement; it is in its file, whole, when this returns.

        Args:
            name: The contender.
            length: Tokens.
            measurement: What was measured; None if memory ran out.
        """
        if not (self.folder / _IDENTITY).exists():
            write_whole(self.folder / _IDENTITY, lambda path: path.write_text(json.dumps(self._identity, indent=1)))
        content = {
            "name": name,
            "length": length,
            "measurement": None if measurement is None else measurement.as_dict(),
        }
        # NaN is written as such: a loss that is not a number is a result too.
        text = json.dumps(content)
        file = self.folder / f"{hashlib.sha256(f'{length} {name}'.encode()).hexdigest()[:16]}.json"
        write_whole(file, lambda path: path.write_text(text))
        self._known[name, length] = measurement

    def close(self) -> None:
        """Removes the folder: all is in the report now."""
        if self.folder.exists():
            # Under another name at once, so that a half-removed folder is never taken for an evaluation to go on with.
            done = self.folder.with_name(f"{self.folder.name}.{os.getpid()}")
            os.replace(self.folder, done)
        for left in self.folder.parent.glob(f"{self.folder.name}.*"):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)

    def _read(self) -> None:
        try:
            stored = read_json(self.folder / _IDENTITY)
            if not isinstance(stored, dict):
                raise ValueError(f"{self.folder / _IDENTITY} must be an object, got {shown(stored)}.")
            for file in sorted(self.folder.glob("[!.]*.json")):
                if file.name != _IDENTITY:
                    name, length, measurement = _entry(read_json(file), str(file))
                    self._known[name, length] = measurement
        except ValueError as error:
            raise ValueError(f"{error} Remove {self.folder} to begin anew.") from error
        if differing := _differences(stored, self._identity):
            raise ValueError(
                f"{self.folder} holds the unfinished evaluation of something else ({'; '.join(differing[:5])}). Ask "
                f"for the same again to go on with it, give another --output_dir, or remove that folder to begin anew."
            )


def _entry(content: Any, where: str) -> tuple[str, int, Measurement | None]:
    """What ``Ledger.add`` has kept in a file."""
    if not isinstance(content, dict) or set(content) != {"name", "length", "measurement"}:
        raise ValueError(f"{where} must be an object of name, length and measurement, got {shown(content)}.")
    name, length, measurement = content["name"], content["length"], content["measurement"]
    if not isinstance(name, str):
        raise ValueError(f"{where}: name must be a string, got {shown(name)}.")
    if type(length) is not int or not 1 <= length <= 2**53:
        raise ValueError(f"{where}: length must be a number of tokens, 1 or more, got {shown(length)}.")
    if measurement is not None:
        measurement = Measurement.from_dict(measurement, f"{where}: measurement")
    return name, length, measurement


def _differences(stored: Any, asked: Any, where: str = "") -> list[str]:
    """Where two pieces of plain data differ, in words."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = [*stored, *(key for key in asked if key not in stored)]
        return [
            difference
            for key in keys
            for difference in _differences(stored.get(key), asked.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if stored == asked else [f"{printable(where[:200])}: {_short(stored)} there, {_short(asked)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
