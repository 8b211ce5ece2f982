"""Files that appear whole or not at all."""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ENDING = re.compile(r"\.[0-9a-f]{32}\.gau-alpha-unfinished")

LISTENERS: list[Callable[[Path], None]] = []
"""Called with the path of each file of this process before anything of it is written."""


class NotWrittenError(OSError):
    """A file could not be written; what lay under its name before is still there."""


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file under another name beside it, then rename it, so that no reader ever meets half of it.

    Its permissions are those of any new file, by the umask: some writers leave one that nobody else may read.

    Args:
        path: The file; its folder is created.
        write: Called with the temporary path.

    Returns:
        The path.

    Raises:
        NotWrittenError: If the disk is full: names the file, the bytes that were written and those that are free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for listener in LISTENERS:
        listener(path)
    # Drawn at random: two containers have processes of one number.
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.gau-alpha-unfinished")
    try:
        with explaining_full_disk(path, unfinished):
            unfinished.touch(exist_ok=False)
            mode = unfinished.stat().st_mode  # a process can't look at its umask without changing it
            write(unfinished)
            if unfinished.stat().st_mode != mode:
                unfinished.chmod(mode)
            os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


@contextmanager
def explaining_full_disk(path: Path, written_to: Path) -> Iterator[None]:
    """Say in one message that the disk is full.

    Args:
        path: What is being written in this ``with`` block.
        written_to: The file that takes it until it is whole.

    Raises:
        NotWrittenError: If the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        if not _disk_full(error):
            raise
        written = written_to.stat().st_size if written_to.exists() else 0
        raise NotWrittenError(
            f"The disk is full: {path} could not be written ({written:,} bytes were, then no more; "
            f"{shutil.disk_usage(path.parent).free:,} bytes are free beside them). "
            f"{'The file of that name from before is' if path.exists() else 'All other files are'} still there."
        ) from error


def unfinished_of(path: Path) -> list[Path]:
    """List what killed processes have left of a file that ``write_atomic`` was writing.

    Args:
        path: The file; it need not exist.
    """
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    start = f".{path.name}"
    return [one for one in beside if one.name.startswith(start) and _ENDING.fullmatch(one.name, len(start))]


def remove_unfinished(paths: Iterable[Path]) -> list[Path]:
    """Remove what ``write_atomic`` had not finished of some files when its process was killed.

    Args:
        paths: The files. Nothing may be writing them.

    Returns:
        What was removed; a link under such a name is none of it.
    """
    found = [one for path in paths for one in unfinished_of(path) if one.is_file() and not one.is_symlink()]
    for path in found:
        path.unlink()
    return found


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
