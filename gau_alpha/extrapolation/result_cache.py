"""Finished measurements, each kept in a file as soon as it is known, so that an interrupted evaluation can resume."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.lock import Lock
from gau_alpha.extrapolation.diagnostics import Diagnostics
from gau_alpha.extrapolation.statistics import DocumentSums
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import Registry, shown

_IDENTITY = "identity.json"
_LOCK = "claim.lock"
_NAME = r"(?:[0-9a-f]{16}|identity)\.json"
_OURS = re.compile(rf"{_NAME}|\.{_NAME}\.[0-9a-f]{{32}}\.gau-alpha-unfinished")
_PLAIN = Registry({})
_FIELDS = {"sums": "array", "diagnostics": "diagnostics"}  # lists of lists, by the name that they have in a file
_LARGEST = 2**53  # counts up to here are exact, whether as int or as float

Measured = tuple[str, str, int]
"""What was measured: the protocol, the candidate, the length in tokens."""


class ResultCache:
    """A folder with the finished measurements of one evaluation; see ``claimed``.

    A measurement is None where memory ran out, which need not be found out again. Only the process that has rank 0
    touches the folder.

    Args:
        folder: Created with the first measurement; gone after ``close``.
        identity: Plain data that says what is evaluated: checkpoints, data, options. Each measurement is kept under it,
            and those of another are never mixed in.

    Raises:
        ValueError: If the folder holds measurements of another evaluation, naming what differs, or files that are no
            measurements, naming file and field.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))
        self._key = hashlib.sha256(json.dumps(self._identity, sort_keys=True).encode()).hexdigest()
        self._known: dict[Measured, DocumentSums | None] = {}
        _check_folder(folder)
        if (folder / _IDENTITY).exists():
            self._read()

    def known(self) -> dict[Measured, DocumentSums | None]:
        """Measurements by what was measured."""
        return dict(self._known)

    def add(self, protocol: str, name: str, length: int, measurement: DocumentSums | None) -> None:
        """Keeps a measurement; it is in its file, whole, when this returns.

        Args:
            protocol: Which positions were masked.
            name: The candidate.
            length: Tokens.
            measurement: What was measured; None if memory ran out.
        """
        if not (self.folder / _IDENTITY).exists():
            write_atomic(self.folder / _IDENTITY, lambda path: path.write_text(json.dumps(self._identity, indent=1)))
        content = {
            "identity": self._key,
            "protocol": protocol,
            "name": name,
            "length": length,
            "measurement": None if measurement is None else plain_sums(measurement),
        }
        # NaN is written as such: a loss that is not a number is a result too.
        text = json.dumps(content)
        digest = hashlib.sha256(f"{self._key} {length} {protocol} {name}".encode()).hexdigest()
        write_atomic(self.folder / f"{digest[:16]}.json", lambda path: path.write_text(text))
        self._known[protocol, name, length] = measurement

    def close(self) -> None:
        """Removes the measurements, which are in the report now, and the folder unless others keep something there."""
        if not self.folder.is_dir():
            return
        # What is killed here leaves fewer measurements, each still under its identity: they can be gone on with.
        for path in sorted(self.folder.iterdir(), key=lambda path: path.name == _IDENTITY):
            if _OURS.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                path.unlink()
        _remove_if_empty(self.folder)

    def _read(self) -> None:
        try:
            stored = read_json(self.folder / _IDENTITY)
            if not isinstance(stored, dict):
                raise ValueError(f"{self.folder / _IDENTITY} must be an object, got {shown(stored)}.")
            for file in sorted(self.folder.glob("[!.]*.json")):
                if file.name != _IDENTITY:
                    key, what, measurement = _entry(read_json(file), str(file))
                    if key == self._key:
                        self._known[what] = measurement
        except ValueError as error:
            raise ValueError(f"{error} Remove {self.folder} to begin anew.") from error
        if differing := _differences(stored, self._identity):
            raise ValueError(
                f"{self.folder} holds the unfinished evaluation of something else ({'; '.join(differing[:5])}). Ask "
                f"for the same again to go on with it, give another --output_dir, or remove that folder to begin anew."
            )


@contextmanager
def claimed(folder: Path, claim: bool = True) -> Iterator[None]:
    """Keep other processes from evaluating into a folder in this ``with`` block.

    Args:
        folder: For a ``ResultCache``.
        claim: Whether this process is the one that touches it.

    Raises:
        ValueError: If another process works there: names its host and number.
    """
    if not claim:
        yield
        return
    _check_folder(folder)
    lock = Lock(folder / _LOCK)
    lock.acquire("Wait until it has ended, or give another --output_dir.")
    try:
        yield
    finally:
        (folder / _LOCK).unlink(missing_ok=True)
        _remove_if_empty(folder)
        lock.release()


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):  # a link may lead anywhere
        raise ValueError(f"{folder} is not a folder: finished measurements can't be kept there. Remove it.")


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        with suppress(OSError):  # another process has come meanwhile
            folder.rmdir()


def plain_sums(sums: DocumentSums) -> dict[str, Any]:
    """Plain data; JSON keeps every digit of it."""
    return {
        "sums": sums.array.tolist(),
        "diagnostics": None if sums.diagnostics is None else sums.diagnostics.layers.tolist(),
        "num_tokens": sums.num_tokens,
        "seconds": sums.seconds,
        "peak_memory_bytes": sums.peak_memory_bytes,
    }


def read_sums(values: object, where: str = "measurement") -> DocumentSums:
    """The inverse of ``plain_sums``, of data that anyone may have written.

    Args:
        values: Plain data.
        where: Names it in messages.

    Raises:
        ValueError: If a field is unknown, missing or not what the class says, naming it.
    """
    if not isinstance(values, dict) or not all(name in values for name in _FIELDS):
        raise ValueError(f"{where} must be an object with {' and '.join(_FIELDS)}, got {shown(values)}.")
    others = {name: value for name, value in values.items() if name not in _FIELDS}
    known = _PLAIN.arguments(DocumentSums, others, where, left_out=tuple(_FIELDS.values()))
    for name, value in known.items():
        if isinstance(value, int | float) and not 0 <= value <= _LARGEST:
            raise ValueError(f"{where}.{name} must lie between 0 and {_LARGEST:,}, got {shown(value)}.")
    if not known["seconds"]:
        raise ValueError(f"{where}.seconds must be more than 0: what is measured takes time.")
    diagnostics = values["diagnostics"]
    if diagnostics is not None:
        diagnostics = Diagnostics(_array(diagnostics, f"{where}.diagnostics", 4, 3 + 64))
    sums = DocumentSums(_array(values["sums"], f"{where}.sums", 8, 10), diagnostics, **known)
    for name, counts in (("positions", sums.positions), ("targets", sums.targets)):
        if not ((counts >= 1) & (counts <= _LARGEST)).all():
            raise ValueError(f"{where}.sums must say of each document how many {name} it has, 1 or more.")
    return sums


def _array(values: object, where: str, fewest: int, most: int) -> np.ndarray:
    """(rows, columns) float64 of a list of lists; NaN and infinities are numbers: a loss may be such a one."""
    rows = values if isinstance(values, list) else []
    if not rows or not all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows):
        raise ValueError(f"{where} must be a list of lists of one length, got {shown(values)}.")
    if not fewest <= len(rows[0]) <= most:
        raise ValueError(f"{where} must have {fewest} to {most} columns, got {len(rows[0])}.")
    for row in rows:
        for value in row:
            if type(value) not in (int, float):
                raise ValueError(f"{where} must hold numbers, got {shown(value)}.")
    try:
        return np.array(rows, np.float64)
    except OverflowError as error:
        raise ValueError(f"{where} holds a number that is more than a floating-point number can hold.") from error


def _entry(content: Any, where: str) -> tuple[str, Measured, DocumentSums | None]:
    """What ``ResultCache.add`` has kept in a file: the identity's hash, what was measured, and the measurement."""
    if not isinstance(content, dict) or set(content) != {"identity", "protocol", "name", "length", "measurement"}:
        raise ValueError(
            f"{where} must be an object of identity, protocol, name, length and measurement, got {shown(content)}."
        )
    for part in ("identity", "protocol", "name"):
        if not isinstance(content[part], str):
            raise ValueError(f"{where}: {part} must be a string, got {shown(content[part])}.")
    length, measurement = content["length"], content["measurement"]
    if type(length) is not int or not 1 <= length <= 2**53:
        raise ValueError(f"{where}: length must be a number of tokens, 1 or more, got {shown(length)}.")
    if measurement is not None:
        measurement = read_sums(measurement, f"{where}: measurement")
    return content["identity"], (content["protocol"], content["name"], length), measurement


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
