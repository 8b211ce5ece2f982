"""What becomes of memory that training on a CPU has freed.

A training step frees and takes hundreds of megabytes. glibc gives much of it back to the system at once, and gets it
again as pages that the system fills with zeros one by one. Kept in the process, it saves 3 to 6 % of a step of 6 layers
of 768.

Tensors beyond 32 MiB still come and go one by one. Kept as well they would save a tenth of a step of 8,192 tokens; but
glibc finds no place among its own free memory for an aligned piece of just the same size, so that a process which
leaves small pieces between large ones would grow without end.
"""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # <malloc.h>
_MOST = 2**31 - 1
_LARGEST_PIECE = 32 * 2**20  # glibc lets its own threshold grow so far, and accepts no more


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of what is freed for what is taken next, until ``return_freed_memory``.

    Processes forked meanwhile do so too, and one whose training ended in an exception goes on doing so.

    Nothing is changed on other systems, nor where the environment (``MALLOC_…_``, ``GLIBC_TUNABLES``) already tells
    glibc what to do.
    """
    if _may_set():
        _set(_MMAP_THRESHOLD, _LARGEST_PIECE)
        _set(_TRIM_THRESHOLD, _MOST)


def return_freed_memory() -> None:
    """Give back what is free, and from now on what is freed beyond 64 MiB, as glibc does by itself in the end."""
    if _may_set():
        _set(_TRIM_THRESHOLD, 2 * _LARGEST_PIECE)
        give_back_what_is_free()


def give_back_what_is_free() -> None:
    """Give free memory back to the system now, which changes nothing for what is freed later."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _may_set() -> bool:
    told = any(name.startswith("MALLOC_") for name in os.environ)
    return _is_glibc() and not told and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", "")


def _set(option: int, value: int) -> None:
    ctypes.CDLL(None).mallopt(option, value)
