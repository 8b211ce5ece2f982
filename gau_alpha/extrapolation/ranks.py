"""What the processes of one evaluation tell each other."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist


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
