"""Several processes that evaluate together: what they tell each other, which batches are whose, sharded weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from gau_alpha.model import GAUAlphaForMaskedLM

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")


class Ranks:
    """This process among all; alone when ``torch.distributed`` isn't initialised.

    Every method is a collective: all processes call it, in the same order.

    Args:
        device: Where collectives take their tensors from: that of the model.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._together = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self._together else 0
        self.world_size = dist.get_world_size() if self._together else 1

    def gather_disjoint(self, values: np.ndarray) -> np.ndarray:
        """Puts together an array of which every process has filled other rows.

        Exact: a number is only ever added to zeros.

        Args:
            values: (rows, …) float64, zero in rows that another process has filled.

        Returns:
            (rows, …) float64.
        """
        return self.total(values)

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum over all processes, element by element.

        Args:
            values: (…) float64.

        Returns:
            (…) float64, of the same shape.
        """
        return self._reduce(values, dist.ReduceOp.SUM) if self.world_size > 1 else values

    def largest(self, *values: float) -> tuple[float, ...]:
        """The largest of all processes, value by value."""
        if self.world_size == 1:
            return values
        return tuple(self._reduce(np.array(values, np.float64), dist.ReduceOp.MAX).tolist())

    def from_first(self, value: Any) -> Any:
        """Hands a piece of plain data of the first process to all.

        Args:
            value: What the first process has; the others' is not looked at.
        """
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def _reduce(self, values: np.ndarray, operation: dist.ReduceOp.RedOpType) -> np.ndarray:
        tensor = torch.as_tensor(values).to(self.device, copy=True)
        dist.all_reduce(tensor, operation)
        return tensor.cpu().numpy()


@dataclass(frozen=True)
class RankBatch:
    """A batch as one process receives it.

    Attributes:
        examples: Which rows it is made of.
        counts: False for a spare batch, run only because other processes still have one to run.
    """

    examples: range
    counts: bool


def shard_batches(num_examples: int, rows: int, rank: int, world_size: int) -> list[RankBatch]:
    """The batches of one process.

    Batches are formed first and then go to processes whole, rank r taking r, r + W, …: so a batch's content, and with
    it the rounding of its results, doesn't depend on the number of processes W. Every process gets the same number of
    batches, because sharded weights need all of them in every forward pass; what is lacking is a repetition of the
    last batch, which doesn't count.

    Args:
        num_examples: Number of rows in all.
        rows: Sequences per batch.
        rank: Rank of this process.
        world_size: Number of processes W.
    """
    batches = [range(start, min(start + rows, num_examples)) for start in range(0, num_examples, rows)]
    num_rounds = -(-len(batches) // world_size)
    indices = range(rank, num_rounds * world_size, world_size)
    return [RankBatch(batches[min(index, len(batches) - 1)], index < len(batches)) for index in indices]


class ShardedForward:
    """Watches a model so that a failure on one process leaves no other waiting.

    FSDP2 gathers the weights of a unit (a layer; what is no layer) just before the unit runs, and every process has to
    take part. A process whose pass fails therefore calls the units that are left all the same, with nothing to compute:
    their weights are gathered and dropped, and it is where the others are. Then they can agree on what to do.

    A process that can't even hold one more unit's weights is lost: the others end when they have waited for the
    timeout of the process group.

    Args:
        model: Of which any part, or none, is sharded.
    """

    def __init__(self, model: GAUAlphaForMaskedLM) -> None:
        self.model = model
        self._units = [unit for unit in model.modules() if isinstance(unit, FSDPModule)]  # the root, then as they run
        self._begun: set[nn.Module] = set()  # units whose weights were gathered in this pass
        self._failure: Exception | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it the model may be called, between ``start`` and ``complete``."""
        for unit in self._units:
            unit.forward = partial(self._forward, unit, unit.forward)  # hooks, which gather, lie around it
        try:
            yield
        finally:
            for unit in self._units:
                del unit.forward  # the class has the method

    def start(self) -> None:
        """Begin a pass."""
        self._begun.clear()
        self._failure = None

    def check(self) -> None:
        """Raise what failed in the model; to be called when it has returned, before its output is looked at.

        Raises:
            Exception: What the model raised, after this process has done its part for the others.
        """
        if self._failure is not None:
            raise self._failure

    def complete(self) -> None:
        """End a pass: do this process's part if the model was not called, or did not get as far as the first unit."""
        if self._units and self._units[0] not in self._begun:
            self._failure = RuntimeError("nothing is to be computed")
            self.model(torch.zeros(1, 1, dtype=torch.int64, device=next(self.model.parameters()).device))

    def _forward(self, unit: nn.Module, forward: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """In place of a unit's own ``forward``: called when its weights are gathered."""
        self._begun.add(unit)
        output = args[0][:1, :1]  # next to nothing, for what comes behind a failed unit
        if self._failure is None:
            try:
                output = forward(*args, **kwargs)
            except Exception as error:
                if is_out_of_memory(error):
                    error.__traceback__ = None  # its frames hold the tensors that took the memory
                self._failure = self._failure or error
        if self._failure is not None and unit is self._units[0]:
            for other in self._units[1:]:
                if other not in self._begun:
                    other(args[0])
        return output


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, in the CPU allocator of torch, or in Python."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error).lower() for message in _OUT_OF_MEMORY)
