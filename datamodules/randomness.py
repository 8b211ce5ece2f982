"""Random words that depend on what they are for, and on nothing else.

A generator that is carried along makes a result depend on who drew before: on the batch size, the worker, the rank,
the point where a run was resumed. Here every draw is read from a counter (Philox) at an address made of the seed,
the purpose, the epoch and the stream, so none of these can matter.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What words are drawn for. Two purposes never share words, whatever the seed."""

    SHUFFLE = 2
    MASKING = 3
    SYNTHETIC = 4
    MIXTURE = 5
    LENGTH = 6
    SPANS = 7
    STREAM = 8
    TURN = 9
    VALIDATION = 10


def random_words(
    seed: int, purpose: Purpose, epoch: int, streams: Sequence[int] | NDArray[np.int64], count: int
) -> NDArray[np.uint64]:
    """Read ``count`` random 64-bit words for every stream.

    Args:
        seed: Seed of the run, at least 0.
        purpose: What the words are for.
        epoch: Epoch they are for; 0 where epochs do not matter.
        streams: (R,) one number per independent stream, such as the sample ids of a batch.
        count: Words per stream. A longer read starts with the words of a shorter one.

    Returns:
        (R, count) words.
    """
    generator = np.random.Philox(key=np.array([seed, purpose], dtype=np.uint64))
    # Moving one generator from address to address costs a third of making one per stream.
    state = generator.state
    address = state["state"]["counter"]
    words = np.empty((len(streams), count), dtype=np.uint64)
    for row, stream in enumerate(np.asarray(streams).astype(np.uint64)):
        # The two low words are left to Philox: it counts in them while it produces a stream.
        address[:] = (0, 0, epoch, stream)
        generator.state = state
        words[row] = generator.random_raw(count)
    return words


def random_order(seed: int, purpose: Purpose, epoch: int, size: int, stream: int = 0) -> NDArray[np.int64]:
    """Permute ``range(size)`` by sorting random words.

    Unlike ``Generator.permutation`` this is the same in every version of NumPy.

    Args:
        seed: Of the run.
        purpose: What the order is for; each purpose has its own.
        epoch: The epoch.
        size: How many there are to put in order.
        stream: Tells apart what is drawn for one purpose.

    Returns:
        (size,) int64.
    """
    return np.argsort(random_words(seed, purpose, epoch, [stream], size)[0], kind="stable")
