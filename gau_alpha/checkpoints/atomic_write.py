"""Files that appear whole or not at all."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

_UNFINISHED = re.compile(r"\..+\.\d+")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotWrittenError(OSError):
    """A file could not be written; what lay under its name before is still there."""


def write_atomic(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file under another name beside it, then rename it, so that no reader ever meets half of it.

    Args:
        path: The file; its folder is created.
        write: Called with the temporary path.

    Returns:
        The path.

    Raises:
        NotWrittenError: If the disk is full: names the file, the bytes that were written and those that are free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(unfinished)
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # torch's writer turns an OSError into a RuntimeError
        if not _disk_full(error):
            raise
        written = unfinished.stat().st_size if unfinished.exists() else 0
        raise NotWrittenError(
            f"The disk is full: {path} could not be written ({written:,} bytes were, then no more; "
            f"{shutil.disk_usage(path.parent).free:,} bytes are free beside them). "
            f"{'The file of that name from before is' if path.exists() else 'All other files are'} still there."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def remove_unfinished(folder: Path) -> list[Path]:
    """Remove what ``write_atomic`` had not finished when its process was killed.

    Args:
        folder: Searched with all folders below it. Nothing else may be writing there.

    Returns:
        What was removed.
    """
    # Links are not followed: what they lead to belongs to others.
    found = [path for path in folder.rglob(".*") if _UNFINISHED.fullmatch(path.name) and path.is_file()]
    for path in found:
        path.unlink()
    return found


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__ or error.__context__
    return False
