"""A lock file: one process works in a folder, and others are told which."""

import errno
import fcntl
import json
import os
import socket
import warnings
from pathlib import Path
from typing import TextIO

from gau_alpha.untrusted.escaping import printable

_TAKEN = (errno.EACCES, errno.EAGAIN)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_LONGEST = 1000


class Lock:
    """A lock that its process holds until it releases it or ends, in whatever way.

    It is the operating system's: a killed process leaves none behind, on this machine or, over NFS, on another. What
    the file says is for people. Forked processes, as of data loaders, do not inherit it; two locks of one process do
    not exclude each other.

    Args:
        path: The file; its folder is created.
        guards: What is in use while it is held, for messages; default: its folder.
    """

    def __init__(self, path: Path, guards: Path | None = None) -> None:
        self.path = path
        self._guards = guards or path.parent
        self._file: TextIO | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object has the lock."""
        return self._file is not None

    def acquire(self, advice: str) -> None:
        """Take the lock, or say who has it.

        Args:
            advice: What to do where it is taken, for the message.

        Raises:
            ValueError: If another process has it: names its host and number.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW  # a link may lead anywhere
            file = os.fdopen(os.open(self.path, flags, 0o666), "r+", encoding="utf-8", errors="replace")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                with file:
                    if error.errno in _TAKEN:
                        raise ValueError(f"{self._guards} is in use by {_holder(file)}. {advice}") from error
                    if error.errno not in _UNSUPPORTED:
                        raise
                message = f"{self.path} can't be locked ({error.strerror}): see that one process uses it."
                warnings.warn(message, stacklevel=2)
                return
            if self.path.exists() and os.path.samestat(self.path.stat(), os.fstat(file.fileno())):
                break
            file.close()  # whoever had it has removed it meanwhile
        file.truncate()
        json.dump({"host": socket.gethostname(), "process": os.getpid()}, file)
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let others take it. The file stays."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _holder(file: TextIO) -> str:
    try:
        said = json.loads(file.read(_LONGEST))
        host, process = str(said["host"])[:100], int(said["process"])
    except (ValueError, LookupError, TypeError):
        return "another process"
    return f"process {process} on {printable(host)}"
