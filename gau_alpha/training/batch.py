"""What the host must know of a batch, found while it still can read it: before the batch is moved to a device.

On a GPU a number that is read waits for all work that was queued before it. Counts therefore travel as shapes: a batch
whose tensors say how many targets there are needs no reading afterwards.

B batch, L length, T targets of a row, N targets of the batch.
"""

import torch
from torch import Tensor

from gau_alpha.attention.method import AttentionMethod

Batch = dict[str, Tensor]
"""Tensors by name, as a data module collates them."""

LAYOUT = ("input_ids", "attention_mask", "position_ids", "segment_ids")
"""What a model's ``forward`` takes of a batch."""


def with_targets(batch: Batch) -> Batch:
    """Add where the targets stand; a pure function of the batch.

    Args:
        batch: ``labels`` (B, L), −100 off target, and others.

    Returns:
        The batch with ``target_positions`` (B, T) int64, T the same in all rows, filled up with place 0;
        ``target_index`` (N,) int64, which of these B · T are targets; ``targets`` (N,) int64, the tokens that were
        there. Without ``attention_mask`` where every token is real. A batch that has all three is returned as it is.
    """
    if {"target_positions", "target_index", "targets"} <= batch.keys():
        return batch
    labels = batch["labels"]
    is_target = labels != -100  # (B, L)
    row, position = is_target.nonzero(as_tuple=True)  # (N,) each, row by row
    count = is_target.sum(1)  # (B,)
    width = _bucket(int(count.max()) if len(row) else 0, labels.shape[1])  # T
    before = count.cumsum(0) - count  # (B,) targets in the rows above
    target_index = row * width + torch.arange(len(row), device=row.device) - before[row]  # (N,)
    positions = position.new_zeros(labels.shape[0] * width).index_put((target_index,), position)  # (B · T,)
    batch = {
        **batch,
        "target_positions": positions.view(labels.shape[0], width),
        "target_index": target_index,
        "targets": labels[row, position],
    }
    if "attention_mask" in batch and bool(batch["attention_mask"].all()):
        del batch["attention_mask"]  # nothing to hide: full rows, which is most of training, need no masks
    return batch


def with_position_ids(batch: Batch, method: AttentionMethod, epoch: int) -> Batch:
    """Draw the position ids of a training batch, where the method draws any.

    Args:
        batch: ``input_ids`` (B, L), and ``sample_ids`` (B,) int64, the numbers of the rows.
        method: Its position says whether ids are drawn.
        epoch: Passes over the data done before this one.

    Returns:
        The batch with ``position_ids`` (B, L), or as it is.

    Raises:
        ValueError: If ids are drawn and rows have no numbers.
    """
    position = method.position
    if not position.samples_positions or "position_ids" in batch:
        return batch
    if "sample_ids" not in batch:
        raise ValueError(
            f"{position!r} draws position ids by the number of a row: give batches sample_ids, (batch,) int64."
        )
    ids = position.sample_position_ids(batch["sample_ids"].tolist(), epoch, batch["input_ids"].shape[-1])  # (B, L)
    return {**batch, "position_ids": ids.to(batch["input_ids"].device)}


def layout(batch: Batch) -> Batch:
    """Keep of a batch what the model's ``forward`` takes: (B, L) each."""
    return {name: batch[name] for name in LAYOUT if name in batch}


def numbers(batch: Batch) -> Batch:
    """Keep of a batch the numbers of its rows, ``sample_ids`` (B,), if it has them: a plain loader's has not."""
    return {name: batch[name] for name in ("sample_ids",) if name in batch}


def _bucket(count: int, length: int) -> int:
    """Round up to one of at most 16 widths, so that compiled graphs are used again."""
    step = max(8, length // 16)
    return min(-(-count // step) * step, length)
