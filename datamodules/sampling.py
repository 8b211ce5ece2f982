"""Which rows make up which batch on which rank, and how a run goes on in the middle of an epoch."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from datamodules.randomness import Purpose, random_order

Request = tuple[int, NDArray[np.int64]]
"""An epoch and the (B,) rows to read in it: what a sampler asks of a dataset."""


class EpochSampler(DistributedSampler[Any]):
    """Whole batches of rows, each row exactly once per epoch over all ranks.

    The order of an epoch is a pure function of (seed, epoch). It is cut into global batches of ``batch_size`` rows per
    rank, and each global batch is dealt to the ranks in contiguous parts: the global batches are the same for
    1 rank with 64 rows and 2 ranks with 32. The last global batch has what is left: it is dealt as evenly as
    possible, so parts differ by one row at most, and a rank may get none (``MaskedRows`` makes that a row
    of padding). All ranks make the same number of steps, no row is dropped or repeated.

    A subclass of DistributedSampler because Lightning replaces any other sampler when there are several ranks.

    Args:
        num_rows: Rows of the whole dataset.
        batch_size: Rows per batch and rank.
        seed: Seed of the order.
        num_replicas: Number of ranks; by default that of the running process group, 1 without one.
        rank: This rank; by default that of the running process group, 0 without one.
    """

    def __init__(
        self,
        num_rows: int,
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
        super().__init__(range(num_rows), num_replicas, rank, seed=seed)  # type: ignore[arg-type]
        self.num_rows = num_rows
        self.global_batch_size = batch_size * num_replicas
        self._first_batch = 0

    def __len__(self) -> int:
        """Count the batches of a whole epoch, the same on every rank."""
        return -(-self.num_rows // self.global_batch_size)  # rounded up

    def __iter__(self) -> Iterator[Request]:
        """Yield the requests of this rank for the epoch, or for what ``resume`` left of it."""
        first_batch, self._first_batch = self._first_batch, 0
        order = self._order()  # (rows,)
        for batch in range(first_batch, len(self)):
            global_batch = order[batch * self.global_batch_size : (batch + 1) * self.global_batch_size]
            yield self.epoch, np.array_split(global_batch, self.num_replicas)[self.rank]

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch. Lightning calls this before each."""
        if epoch != self.epoch:
            self.epoch = epoch
            self._first_batch = 0

    def resume(self, epoch: int, first_batch: int) -> None:
        """Let the next iteration start inside an epoch."""
        self.epoch = epoch
        self._first_batch = first_batch

    @property
    def first_batch(self) -> int:
        """Where the next iteration starts."""
        return self._first_batch

    def _order(self) -> NDArray[np.int64]:
        return random_order(self.seed, Purpose.SHUFFLE, self.epoch, self.num_rows)


class FixedSampler(EpochSampler, SequentialSampler):
    """Rows in order, and every epoch like epoch 0, masks included. Dealt to ranks as by ``EpochSampler``.

    A SequentialSampler, too, because Lightning replaces any other when it overfits on a few batches.
    """

    def __iter__(self) -> Iterator[Request]:  # type: ignore[override]  # a SequentialSampler by name only
        """Yield the requests of this rank."""
        for _, rows in super().__iter__():
            yield 0, rows

    def _order(self) -> NDArray[np.int64]:
        return np.arange(self.num_rows)


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
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go to a saved position.

        Raises:
            ValueError: If the position lies inside an epoch whose batches were others.
        """
        sampler = self._epoch_sampler
        now = self.state_dict()
        inside_epoch = 0 < state_dict["batches"] * state_dict["global_batch_size"] < state_dict["num_rows"]
        for name in ("num_rows", "global_batch_size", "seed"):
            if inside_epoch and state_dict[name] != now[name]:
                raise ValueError(
                    f"The checkpoint was written inside an epoch with {name}={state_dict[name]}, but this run has "
                    f"{now[name]}, so the rest of that epoch is not defined. Use the same data, seed and "
                    "batch_size x number of ranks, or a checkpoint from the end of an epoch."
                )
        if inside_epoch:
            sampler.resume(state_dict["epoch"], state_dict["batches"])
        self._epoch, self._batches = state_dict["epoch"], state_dict["batches"]


def loader_options(num_workers: int, pin_memory: bool) -> dict[str, Any]:
    """Options of a DataLoader whose sampler yields whole batches."""
    return {
        "batch_size": None,
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": pin_memory,
        # A loader without a generator of its own draws from torch's global one each time it is iterated, so that
        # a validation would change the dropout of the steps that follow.
        "generator": torch.Generator(),
    }
