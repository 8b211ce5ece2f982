"""Which parameters decay, and how the learning rate moves."""

import math
from abc import ABC, abstractmethod
from numbers import Real

from torch import nn

from gau_alpha.untrusted.registry import shown


class Schedule(ABC):
    """The learning rate as a fraction of its peak: a pure function of the optimizer step.

    Args:
        warmup: Fraction of all steps in which the rate rises linearly from 0 to its peak.
        final: Fraction of the peak that the last step ends at.

    Raises:
        ValueError: If ``warmup`` or ``final`` is outside [0, 1].
    """

    def __init__(self, warmup: float = 0.1, final: float = 0.0) -> None:
        for name, value in (("warmup", warmup), ("final", final)):
            if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a fraction from 0 to 1, got {shown(value)}.")
        self.warmup = warmup
        self.final = final

    def factor(self, step: int, total_steps: int) -> float:
        """Compute the factor on the peak rate.

        Args:
            step: Optimizer steps done.
            total_steps: Optimizer steps of the whole run.
        """
        warmup_steps = self.warmup * total_steps
        if step < warmup_steps:
            # The first step must move, so it is counted as done.
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
        return self.final + (1 - self.final) * self.decay(progress)

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Fall from 1 at ``progress`` 0 to 0 at ``progress`` 1."""

    def describe(self) -> dict[str, object]:
        """Say in plain data how to build this schedule."""
        cls = type(self)
        init_args = {"warmup": self.warmup, "final": self.final}
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": init_args}


class Cosine(Schedule):
    """Linear warm-up, then half a cosine down to ``final`` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5)."""

    def decay(self, progress: float) -> float:
        """Fall as (1 + cos(π · progress)) / 2."""
        return 0.5 * (1 + math.cos(math.pi * progress))


class Linear(Schedule):
    """Linear warm-up, then a straight line down to ``final``."""

    def decay(self, progress: float) -> float:
        """Fall as 1 − progress."""
        return 1 - progress


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split parameters into those that decay and those that don't.

    Matrices decay. Scales, offsets, biases and whatever an attention method learns do not: pulling a scale towards 0
    is no regularisation.

    Args:
        model: The model.
        weight_decay: Decay of the matrices.

    Returns:
        Two groups for an optimizer.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [p for name, p in trained if p.ndim >= 2 and ".method." not in name]
    others = [p for name, p in trained if p.ndim < 2 or ".method." in name]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
