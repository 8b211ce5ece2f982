"""Peak memory, and which errors mean that there was too little."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

SMALLEST_BLOCK = 16
"""Queries; below, a block's own work costs more memory than its scores."""

_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, in the CPU allocator of torch, or in Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _MESSAGES)


def smaller_and_smaller(rows: int, block_size: int | None) -> Iterator[tuple[int, int | None]]:
    """What to try when memory runs out: fewer rows per batch, then fewer queries per block.

    Args:
        rows: SequenceLayout per batch to begin with.
        block_size: Queries per block to begin with; None if the kernel has no blocks.

    Yields:
        (rows, block_size), as given at first, halved from one to the next.
    """
    yield rows, block_size
    while rows > 1:
        rows //= 2
        yield rows, block_size
    while block_size is not None and block_size > SMALLEST_BLOCK:
        block_size = max(SMALLEST_BLOCK, block_size // 2)
        yield rows, block_size


class PeakMemory:
    """The most memory in use since ``start``.

    CUDA: bytes allocated by torch on the device; its peak statistics begin anew. Linux without CUDA: resident memory of
    the process, whose high-water mark the kernel resets on request (proc_pid_clear_refs(5), value 5); else unknown.

    Args:
        device: Where the model is.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        """Forgets earlier peaks."""
        self._known = True
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu" and sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")
            except OSError:  # a container may forbid it; the mark would then tell of earlier work
                self._known = False
        else:
            self._known = False

    def read(self) -> int:
        """Bytes, or 0 where it can't be known."""
        if not self._known:
            return 0
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024
