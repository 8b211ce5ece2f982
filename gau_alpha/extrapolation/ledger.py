"""Finished measurements, each kept in a file as soon as it is known, so that an interrupted evaluation can go on."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from gau_alpha.extrapolation.measurement import Measurement
from gau_alpha.files import write_whole

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
        ValueError: If the folder holds measurements of another evaluation, naming what differs.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))
        self._known: dict[tuple[str, int], Measurement | None] = {}
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
            shutil.rmtree(left)

    def _read(self) -> None:
        stored = json.loads((self.folder / _IDENTITY).read_text())
        if differing := _differences(stored, self._identity):
            raise ValueError(
                f"{self.folder} holds the unfinished evaluation of something else ({'; '.join(differing[:5])}). Ask "
                f"for the same again to go on with it, give another --output_dir, or remove that folder to begin anew."
            )
        for file in sorted(self.folder.glob("[!.]*.json")):
            if file.name != _IDENTITY:
                content = json.loads(file.read_text())
                values = content["measurement"]
                self._known[content["name"], content["length"]] = (
                    None if values is None else Measurement.from_dict(values)
                )


def _differences(stored: Any, asked: Any, where: str = "") -> list[str]:
    """Where two pieces of plain data differ, in words."""
    if isinstance(stored, dict) and isinstance(asked, dict):
        keys = [*stored, *(key for key in asked if key not in stored)]
        return [
            difference
            for key in keys
            for difference in _differences(stored.get(key), asked.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if stored == asked else [f"{where}: {_short(stored)} there, {_short(asked)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
