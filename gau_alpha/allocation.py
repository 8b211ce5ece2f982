"""What becomes of memory that training or an evaluation on a CPU has freed.

A training step frees and takes hundreds of megabytes. glibc gives much of it back to the system at once, and gets it
again as pages that the system fills with zeros one by one: 5 to 10 % of a step of 6 layers of 768. Kept in the process,
as GPUs' memory is by torch, it costs nothing.

glibc takes pieces beyond 32 MiB from the system one by one, unless there is room for them among its free memory. It
could be told never to; but it finds no place for an aligned piece where one of just the same size has been, so that a
process which leaves small pieces between large ones would grow without end. Hence it is made to hold a certain room
free in advance, the bound of such growth. Nothing but addresses is taken until the room is used, and what does not fit
comes and goes as before. 60 steps of two layers, of rows as many and as long as chance would have it, ended at 1.02
times the peak that they have without all this, and took 0.92 of the time.
"""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>
_NEVER = -1
_LARGEST_PIECE = 32 * 2**20  # glibc lets its own threshold grow so far, and accepts no more
_LARGEST_ROOM = 8 * 2**30
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_room: int | None = None
"""Bytes that this process holds free for large pieces; None while it keeps nothing."""


def keep_freed_memory(room: int | None = None) -> None:
    """Let glibc keep what is freed for what is taken next, until ``return_freed_memory``.

    Processes forked meanwhile keep theirs too, and so does one whose training ended in an exception.

    Nothing is changed on other systems, nor where the environment (``MALLOC_…_``, ``GLIBC_TUNABLES``) already tells
    glibc what to do.

    Args:
        room: Bytes. Pieces beyond 32 MiB are kept as far as they fit into it. At most, and by default, this process's
            share of a quarter of the memory that the machine or its container has, an eighth of what a limit on the
            process allows, and 8 GiB.
    """
    global _room
    if _may_set() and _set(_MMAP_THRESHOLD, _LARGEST_PIECE) and _set(_TRIM_THRESHOLD, _NEVER):
        _room = min(_LARGEST_ROOM if room is None else room, *_bounds())
        _hold(_room)


def return_freed_memory() -> None:
    """Give back what is free, and from now on what is freed beyond 64 MiB, as glibc does by itself in the end."""
    global _room
    if _may_set():
        _set(_TRIM_THRESHOLD, 2 * _LARGEST_PIECE)
        _room = None
        give_back_what_is_free()


@contextmanager
def freed_memory_kept(device: torch.device, room: int) -> Iterator[None]:
    """Keep freed memory in a ``with`` block, on a CPU.

    Args:
        device: Where the work is done.
        room: As in ``keep_freed_memory``. Where there is more already, there is so much meanwhile.
    """
    before = _room
    if device.type != "cpu" or (before is not None and before <= room):
        yield
        return
    keep_freed_memory(room)
    try:
        yield
    finally:
        if before is None:
            return_freed_memory()
        else:
            keep_freed_memory(before)


def give_back_what_is_free() -> None:
    """Give free memory back to the system now, which changes nothing for what is freed later: room is held again."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)
        if _room is not None:
            _hold(_room)


def _hold(room: int) -> None:
    """Take so many bytes in pieces, and free them: glibc holds them, and untouched they are addresses only.

    That is so in the main thread, whose heap alone has place for them.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    size = _LARGEST_PIECE - 2**16
    for piece in [library.malloc(ctypes.c_size_t(size)) for _ in range(room // size)]:
        library.free(piece)  # or NULL, which is nothing


def _bounds() -> Iterator[int]:
    """Yield what the room must not exceed, in bytes."""
    import resource  # Windows has none

    yield _LARGEST_ROOM
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # set by torchrun and its like
    memory = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *filter(None, map(_number, _CONTAINER_LIMITS))]
    yield min(memory) // 4 // processes
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        allowed, _ = resource.getrlimit(limit)
        if allowed != resource.RLIM_INFINITY:
            yield allowed // 8


def _number(path: Path) -> int | None:
    """Read a number from a file; None if there is none ("max")."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _may_set() -> bool:
    told = any(name.startswith("MALLOC_") for name in os.environ)
    return _is_glibc() and not told and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", "")


def _set(option: int, value: int) -> bool:
    """Set an option of glibc's, and say whether it is set."""
    return bool(ctypes.CDLL(None).mallopt(option, value))
