"""Ways to compute attention. All give the same numbers; they differ in cost.

``reference`` reads like the formula and holds every score at once. ``blocked`` takes a block of queries at a time
against only the keys that these can see; memory is O(block · visible keys). Nothing here depends on the strategy.
"""

from gau_alpha.attention.kernels.base import BLOCK_SIZE, Kernel, Observer
from gau_alpha.attention.kernels.blocked import Blocked
from gau_alpha.attention.kernels.reference import Reference
from gau_alpha.attention.kernels.selected import attend_at

__all__ = ["BLOCK_SIZE", "KERNELS", "Blocked", "Kernel", "Observer", "Reference", "attend_at", "build_kernel"]

KERNELS = {"reference": Reference, "blocked": Blocked}
"""Kernels by name."""


def build_kernel(name: str) -> Kernel:
    """Build a kernel by name.

    Args:
        name: ``reference``, ``blocked``, or ``auto``, which takes ``blocked``: it was fastest on a CPU for every method
            and length measured (``tests/benchmarks/kernels.py``).

    Raises:
        ValueError: If there is no kernel of that name.
    """
    if name == "auto":
        return Blocked()
    if name not in KERNELS:
        raise ValueError(f"Unknown kernel {name!r}; choose one of: auto, {', '.join(KERNELS)}.")
    return KERNELS[name]()
