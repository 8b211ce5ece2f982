"""Whether a file that ``torch.save`` wrote is still what was written.

A zip archive may end in a comment, which every reader skips. Ours holds the SHA-256 of all bytes before it, so that a
checkpoint is one file, is renamed with its checksum, and is read by plain torch and Lightning as any other.

    … end-of-archive record | length of the comment, 2 bytes | b"sha256:" and 64 hexadecimal digits
    └───────── hashed ──────┘
"""

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

_TRIES = 3
_MARK = b"sha256:"
_COMMENT = len(_MARK) + 64
_LENGTH = _COMMENT.to_bytes(2, "little")
_TAIL = len(_LENGTH) + _COMMENT


def append_checksum(path: Path) -> None:
    """Append the checksum to an archive that has no comment yet.

    Args:
        path: What ``torch.save`` wrote.
    """
    with path.open("r+b") as file:
        size = file.seek(-2, 2)
        assert file.read() == b"\0\0", "torch writes archives without a comment"
        file.seek(0)
        digest = _digest(file, size)
        file.seek(size)
        file.write(_LENGTH + _MARK + digest)


def find_corruption(path: Path) -> str | None:
    """Say what is wrong with a file, without reading it as anything but bytes.

    With a checksum every change is found. An archive without one, which other software wrote, is held against the
    32-bit check sums of its own records, which leave changes between the records unnoticed; a file in torch's format
    from before 1.6, no archive, is not checked.

    Args:
        path: The file.

    Returns:
        What is wrong; None if nothing was found.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        if tail.startswith(_LENGTH) or tail[len(_LENGTH) :].startswith(_MARK):
            file.seek(0)
            sound = tail == _LENGTH + _MARK + _digest(file, size - _TAIL)
            return None if sound else "its content is not what its checksum was made of"
        file.seek(0)
        is_archive = file.read(4) == b"PK\3\4"
    if not is_archive:
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if _MARK in archive.comment:
                return "its checksum is damaged"
            record = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        return f"it is cut off or damaged ({error})"
    return f"its record {record} is damaged" if record else None


def read_hashed(path: Path, read: Callable[[Path], T]) -> tuple[T, str]:
    """Read a file, and hash the very bytes that were read: it may be replaced at any moment.

    Args:
        path: The file.
        read: Called with the path.

    Returns:
        What ``read`` returned, and the SHA-256 of the whole file, 64 hexadecimal digits.

    Raises:
        ValueError: If it changes faster than it can be read.
    """
    for _ in range(_TRIES):
        with path.open("rb") as file:
            before = _version(os.fstat(file.fileno()))
            content = read(path)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if before == _version(os.fstat(file.fileno())) == _version(path.stat()):
                return content, digest
    raise ValueError(f"{path} was replaced while it was read, {_TRIES} times: is a run writing it? Read a copy of it.")


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _digest(file: BinaryIO, size: int) -> bytes:
    """Hash the next ``size`` bytes; as hexadecimal digits."""
    hashed, left = hashlib.sha256(), size
    while left:
        block = file.read(min(left, 1 << 20))
        hashed.update(block)
        left -= len(block)
    return hashed.hexdigest().encode()
