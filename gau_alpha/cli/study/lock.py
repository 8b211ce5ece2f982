"""A lock that a task's commands hold together with the process that started them."""

import fcntl
import os
from pathlib import Path


class TaskLock:
    """Held until the process that took it, and all that inherited it, have ended.

    So a study that was killed while its training lived on does not start a second one into the same folder. It is a
    ``flock`` of the operating system: nothing is left behind by a killed process. Over NFS, where a lock belongs to one
    process, only the study itself holds it; the training's own lock then tells of the conflict.

    Args:
        path: The file; its folder is created, and it stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """The open file, for processes that are to inherit the lock (``subprocess``'s ``pass_fds``)."""
        assert self._descriptor is not None, "the lock is held"
        return self._descriptor

    def acquire(self, wait: bool) -> bool:
        """Take the lock.

        Args:
            wait: Whether to wait until it is free.

        Returns:
            Whether it was taken.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go of it; what inherited it may hold it longer."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
