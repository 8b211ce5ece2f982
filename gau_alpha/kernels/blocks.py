"""How many queries make a block."""

import os

from gau_alpha.method import AttentionPlan

SMALL = 128
"""Queries per block where keys are too many for a larger one to stay in the cache, or most of them are hidden."""

LARGEST = 1024
"""Larger blocks were no faster."""

CACHES = 16
"""How many second-level caches a block's scores may fill. Measured where one has 2 MiB: training on 16 rows of 512
takes 3 % less with 16 than with 4, passes over 4,096 tokens as long with 2, 4, 8 or 16."""


def _second_level_cache() -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not say."""
    try:
        size = os.sysconf("SC_LEVEL2_CACHE_SIZE")  # 0 or -1: not known
        return size if size > 0 else 2**20
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, macOS not this name
        return 2**20


_SECOND_LEVEL_CACHE = _second_level_cache()


def queries_per_block(most: int, batch: int, plan: AttentionPlan) -> int:
    """Choose a block size for a batch.

    A large block costs fewer passes over keys and values, and in training fewer sums of their gradients, until its
    scores fall out of the cache. Where queries see a part of the row only, a small block touches fewer hidden keys.

    Args:
        most: Queries per block at most.
        batch: Rows B.
        plan: What is visible in them.

    Returns:
        Queries per block, at least 1 and at most ``most``.
    """
    length = plan.rows.length
    if most <= SMALL or plan.visibility.key_ranges(0, min(SMALL, length), plan.rows) != ((0, length),):
        return min(most, SMALL)
    fitting = CACHES * _SECOND_LEVEL_CACHE // (4 * batch * length)  # scores are float32
    return min(most, max(SMALL, 1 << (fitting.bit_length() - 1) if fitting else 0))
