"""Several optimizers as one: Lightning's automatic optimization, its schedules and checkpoints know of one."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from torch.optim import Optimizer


class JoinedOptimizer(Optimizer):
    """Steps each of its parts; groups and state are theirs, and are saved and restored as of one optimizer.

    Args:
        parts: Optimizers of different parameters.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        self.parts = tuple(parts)
        self._sizes = [len(part.param_groups) for part in parts]
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every part.

        Args:
            closure: Computes gradients, and the loss that is returned; called once.
        """
        loss = None if closure is None else self.parts[0].step(closure)
        for part in self.parts if closure is None else self.parts[1:]:
            part.step()
        return loss

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Let the parts have the joined groups and state: who changes a rate, or restores moments, knows only these.

        torch puts new groups and a new state in the place of the old where it restores them.
        """
        groups = iter(self.param_groups)
        for part, size in zip(self.parts, self._sizes, strict=True):
            part.param_groups = list(islice(groups, size))
            part.state = self.state
