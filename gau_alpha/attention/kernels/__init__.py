"""Ways to compute attention. All give the same numbers; they differ in cost.

``reference`` reads like the formula and holds every score at once. ``blocked`` takes a block of queries at a time, and
under windows only the keys around them; memory is O(block · L), in training too. Nothing here depends on the strategy.
"""

from gau_alpha.attention.kernels.base import Kernel, Observer
from gau_alpha.attention.kernels.blocked import BLOCK_SIZE, Blocked
from gau_alpha.attention.kernels.reference import Reference

__all__ = ["BLOCK_SIZE", "KERNELS", "Blocked", "Kernel", "Observer", "Reference", "build_kernel"]

KERNELS = {"reference": Reference, "blocked": Blocked}
"""Kernels by name."""


def build_kernel(name: str) -> Kernel:
    """Build a kernel by name.

    Args:
        name: ``reference``, ``blocked``, or ``auto``, which takes ``blocked``: it was fastest on a CPU for every method
            and length measured (``tests/benchmarks/kernel_times.py``).

    Raises:
        ValueError: If there is no kernel of that name.
    """
    if name == "auto":
        return Blocked()
    if name not in KERNELS:
        raise ValueError(f"Unknown kernel {name!r}; choose one of: auto, {', '.join(KERNELS)}.")
    return KERNELS[name]()
