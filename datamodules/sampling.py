"""Which rows make up which batch on which rank, and how a run goes on in the middle of an epoch.

torchdata's StatefulDataLoader keeps the state of each worker, so a run could only go on with as many workers as before.
Here the position is a number of batches, whoever makes them.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from datamodules.arguments import require_at_least, require_kind, shown
from datamodules.randomness import Purpose, random_order
from datamodules.rows.base import Group


class Request(NamedTuple):
    """What a sampler asks of a dataset.

    Attributes:
        epoch: The epoch.
        rows: (B,) the rows to read in it; none where a rank has none left.
        length: Tokens per row of the batch.
        step: Number of the batch since the start of training; None where no training goes on.
    """

    epoch: int
    rows: NDArray[np.int64]
    length: int
    step: int | None = None


class EpochSampler(DistributedSampler[Any]):
    """Whole batches of rows, each row exactly once per epoch over all ranks.

    The order of an epoch is a pure function of (seed, epoch). It is cut into global batches of ``batch_size`` rows per
    rank, and each global batch is dealt to the ranks in contiguous parts: the global batches are the same for
    1 rank with 64 rows and 2 ranks with 32. The last global batch has what is left: it is dealt as evenly as
    possible, so parts differ by one row at most, and a rank may get none (``MaskedRows`` makes that a row
    of padding). All ranks make the same number of steps, no row is dropped or repeated.

    Rows of several lengths come in groups, each with a batch size of its own. A batch has rows of one group, and the
    batches of all groups are shuffled together. Where a group has weights, each of its ranges makes up its share of the
    epoch instead of being gone through once: the next stretch of an endless walk through the range, shuffled anew at
    every pass.

    A subclass of DistributedSampler because Lightning replaces any other sampler when there are several ranks.

    Args:
        rows: The groups of rows; a number means that many rows of one length.
        batch_size: Rows per batch and rank, where ``rows`` is a number.
        seed: Seed of the order.
        num_replicas: Number of ranks; by default that of the running process group, 1 without one.
        rank: This rank; by default that of the running process group, 0 without one.
    """

    def __init__(
        self,
        rows: int | Sequence[Group],
        batch_size: int,
        seed: int,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        in_group = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if in_group else 1
        if rank is None:
            rank = dist.get_rank() if in_group else 0
        groups = (Group(0, batch_size, ((0, rows),)),) if isinstance(rows, int) else tuple(rows)
        num_rows = sum(group.num_rows for group in groups)
        super().__init__(range(num_rows), num_replicas, rank, seed=seed)  # type: ignore[arg-type]
        self.groups = groups
        self.num_rows = num_rows
        self.global_batch_size = batch_size * num_replicas
        self._batches_per_group = [-(-group.num_rows // (group.batch_size * num_replicas)) for group in groups]
        self._first_batch = 0

    def __len__(self) -> int:
        """Count the batches of a whole epoch, the same on every rank and in every epoch."""
        return sum(self._batches_per_group)

    def __iter__(self) -> Iterator[Request]:
        """Yield the requests of this rank for the epoch, or for what ``resume`` left of it."""
        first_batch, self._first_batch = self._first_batch, 0
        orders = [self._order(number) for number in range(len(self.groups))]  # (rows of the group,) each
        turns = self._turns()  # (batches,)
        # (batches,) how many batches of its group come before each
        before = np.empty_like(turns)
        for number, batches in enumerate(self._batches_per_group):
            before[turns == number] = np.arange(batches)
        for batch in range(first_batch, len(self)):
            group = self.groups[turns[batch]]
            size = group.batch_size * self.num_replicas
            first = int(before[batch])
            global_batch = orders[turns[batch]][first * size : (first + 1) * size]
            rows = np.array_split(global_batch, self.num_replicas)[self.rank]
            yield Request(self.epoch, rows, group.length, self.epoch * len(self) + batch)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch. Lightning calls this before each."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._first_batch = 0

    def resume(self, epoch: int, first_batch: int) -> None:
        """Let the next iteration start inside an epoch.

        Args:
            epoch: The epoch.
            first_batch: Batches of it that are done.
        """
        self.epoch = epoch
        self._first_batch = first_batch

    @property
    def first_batch(self) -> int:
        """Where the next iteration starts."""
        return self._first_batch

    def layout(self) -> int:
        """Return a number that changes with the groups."""
        return zlib.crc32(repr(self.groups).encode())

    def _order(self, number: int) -> NDArray[np.int64]:
        """Order the rows of a group: (rows of the group,)."""
        group = self.groups[number]
        if group.weights is None:
            rows = _all_rows(group)
        else:
            counts = _in_shares(group.num_rows, group.weights)
            walks = [self._walk(number, part, count) for part, count in enumerate(counts)]
            rows = np.concatenate(walks)
        return rows[random_order(self.seed, Purpose.SHUFFLE, self.epoch, len(rows), stream=number)]

    def _turns(self) -> NDArray[np.int64]:
        """Say whose turn it is: (batches,) groups."""
        turns = np.repeat(np.arange(len(self.groups)), self._batches_per_group)
        if len(self.groups) == 1:
            return turns
        return turns[random_order(self.seed, Purpose.TURN, self.epoch, len(turns))]

    def _walk(self, number: int, part: int, count: int) -> NDArray[np.int64]:
        """Take the epoch's stretch of an endless walk through a range: (count,) rows."""
        first, stop = self.groups[number].ranges[part]
        size = stop - first
        begin, end = self.epoch * count, (self.epoch + 1) * count
        passes = range(begin // size, -(-end // size))
        # A pass is shuffled for its own number, not for the epoch's, since both epochs that share it must agree.
        stream = number * len(self.groups[number].ranges) + part
        orders = [random_order(self.seed, Purpose.MIXTURE, each, size, stream) for each in passes]
        walked = np.concatenate([*orders, np.empty(0, dtype=np.int64)])[begin - passes.start * size :]
        return first + walked[:count]


class FixedSampler(EpochSampler, SequentialSampler):
    """Every row once, in order, and every epoch like epoch 0, masks included. Dealt to ranks as by ``EpochSampler``.

    A SequentialSampler, too, because Lightning replaces any other when it overfits on a few batches.
    """

    def __iter__(self) -> Iterator[Request]:  # type: ignore[override]  # a SequentialSampler by name only
        """Yield the requests of this rank."""
        for request in super().__iter__():
            yield request._replace(epoch=0, step=None)

    def _order(self, number: int) -> NDArray[np.int64]:
        return _all_rows(self.groups[number])

    def _turns(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self.groups)), self._batches_per_group)


class ShuffledSampler(FixedSampler):
    """Every row once, shuffled, and every epoch like epoch 0: the first batches are a fair sample of all rows.

    Rows of a plan stand by document, by length or by how full they are, so that in their own order the first batches
    are like each other and unlike the rest.
    """

    def _order(self, number: int) -> NDArray[np.int64]:
        rows = super()._order(number)
        return rows[random_order(self.seed, Purpose.VALIDATION, 0, len(rows), stream=number)]

    def _turns(self) -> NDArray[np.int64]:
        turns = super()._turns()
        return turns[random_order(self.seed, Purpose.VALIDATION, 0, len(turns), stream=len(self.groups))]


def _all_rows(group: Group) -> NDArray[np.int64]:
    return np.concatenate([np.arange(first, stop) for first, stop in group.ranges])


def _in_shares(total: int, weights: Sequence[float]) -> list[int]:
    """Divide a number in shares, each rounded by less than 1, so that they sum to it."""
    bounds = np.rint(np.cumsum([0.0, *weights]) / sum(weights) * total).astype(np.int64)
    return np.diff(bounds).tolist()


class ResumableLoader(DataLoader[Any]):
    """A DataLoader whose position is saved in Lightning's checkpoints.

    The position is counted where batches leave the loader, so batches that workers have prepared ahead do not count,
    and it is two numbers (epoch, batches), so that a run may go on with another number of workers.

    Args:
        dataset: Answers the sampler's requests with batches.
        sampler: What to request.
        batches_in_hand: Says how many batches have left the loader but were not trained on: 1 if a step
            failed and the checkpoint is written for that reason. They will be read again.
        num_workers: Worker processes.
        pin_memory: Whether batches are put in page-locked memory.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: EpochSampler,
        batches_in_hand: Callable[[], int],
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        super().__init__(dataset, sampler=sampler, **loader_options(num_workers, pin_memory))
        self._epoch_sampler = sampler
        self._batches_in_hand = batches_in_hand
        self._epoch = sampler.epoch
        self._batches = 0

    # A generator, so that nothing is read before the first batch is asked for: Lightning makes the iterator
    # of an epoch before it tells the sampler which epoch it is.
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._epoch, self._batches = self._epoch_sampler.epoch, self._epoch_sampler.first_batch
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position, and what it must be true of."""
        return {
            "epoch": self._epoch,
            "batches": self._batches - self._batches_in_hand(),
            "num_rows": self._epoch_sampler.num_rows,
            "global_batch_size": self._epoch_sampler.global_batch_size,
            "seed": self._epoch_sampler.seed,
            "layout": self._epoch_sampler.layout(),
            "batches_per_epoch": len(self._epoch_sampler),
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: If the position lies inside an epoch whose batches were others, or is none.
        """
        require_kind(dict, position=state_dict)
        for name in ("epoch", "batches", "batches_per_epoch"):
            require_at_least(0, **{f"position[{name!r}]": state_dict.get(name)})
        sampler = self._epoch_sampler
        now = self.state_dict()
        inside_epoch = 0 < state_dict["batches"] < state_dict["batches_per_epoch"]
        for name in ("num_rows", "global_batch_size", "seed", "layout"):
            if inside_epoch and state_dict.get(name) != now[name]:
                raise ValueError(
                    f"The checkpoint was written inside an epoch with {name}={shown(state_dict.get(name))}, but this "
                    f"run has {now[name]}, so the rest of that epoch is not defined. Use the same data, seed and "
                    "batch_size x number of ranks, the same rows and weights, or a checkpoint from the end of an epoch."
                )
        if inside_epoch:
            sampler.resume(state_dict["epoch"], state_dict["batches"])
        self._epoch, self._batches = state_dict["epoch"], state_dict["batches"]


def loader_options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    """Options of a DataLoader whose sampler yields whole batches.

    Args:
        num_workers: Worker processes.
        pin_memory: Whether batches are copied to memory that a GPU reads fast.
    """
    return {
        "batch_size": None,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        # A loader without a generator of its own draws from torch's global one each time it is iterated, so that
        # a validation would change the dropout of the steps that follow.
        "generator": torch.Generator(),
    }
