"""Rows of large tensors a few at a time, so that they stay in a CPU's cache from one operation to the next.

N rows, H their width.
"""

from collections.abc import Iterator

from torch import Tensor

PIECE = 3 * 2**16
"""Numbers of a piece: five tensors of float32 fill two second-level caches of 2 MiB. There the gate and its gradient,
of 8,192 tokens and a width of 1536, take two thirds of the time that they take whole, and up to 6 % more with pieces of
half or twice the size."""


def pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors (..., H) into the same rows; on other devices than CPUs, into one piece.

    Args:
        *tensors: (..., H) each; H may differ, and that of the first decides how many rows a piece has.

    Yields:
        The tensors' rows of a piece, (N, H) each: views of contiguous tensors and of their last dimension's parts, so
        that these can be written to; of others perhaps copies.
    """
    rows = [tensor.flatten(0, -2) for tensor in tensors]  # (rows, H) each
    at_once = max(1, PIECE // rows[0].shape[-1] if rows[0].device.type == "cpu" else len(rows[0]))
    return zip(*(tensor.split(at_once) for tensor in rows), strict=True)
