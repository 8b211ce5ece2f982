"""Passes of sharded weights, which all processes gather together, also where one of them fails amid a pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from gau_alpha.extrapolation.memory import is_out_of_memory
from gau_alpha.model import GAUAlphaForMaskedLM


class Lockstep:
    """Calls a model so that a failure on one process leaves no other waiting.

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
        """Within it ``run`` and ``complete`` may be called."""
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

    def run(self, *args: Any, **kwargs: Any) -> Tensor:
        """Call the model.

        Args:
            *args: The model's.
            **kwargs: The model's.

        Returns:
            The model's logits, (B, T, V) for T target positions of each row.

        Raises:
            Exception: What the model raised, after this process has done its part for the others.
        """
        output = self.model(*args, **kwargs)
        if self._failure is not None:
            raise self._failure
        return output

    def complete(self) -> None:
        """End a pass: do this process's part if ``run`` was not reached, or did not get as far as the first unit."""
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
