"""Rates of masking that change while training goes on.

Steps are training batches: the rate of a batch is a pure function of its number, so it survives resuming.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from datamodules.arguments import is_number, require_at_least, require_kind, shown


class RateSchedule(ABC):
    """A rate for every step."""

    @abstractmethod
    def at(self, step: int | None) -> float:
        """Return the rate of a training batch, counted from 0; for None, outside of training, the last rate."""


@dataclass(frozen=True)
class _Between(RateSchedule):
    start: float
    end: float
    num_steps: int

    def __post_init__(self) -> None:
        _check_rates(start=self.start, end=self.end)
        require_at_least(1, num_steps=self.num_steps)

    def at(self, step: int | None) -> float:
        """Move from the first rate to the last, and stay there."""
        done = 1.0 if step is None else min(step / self.num_steps, 1.0)
        return self.start + (self.end - self.start) * self._progress(done)

    @abstractmethod
    def _progress(self, done: float) -> float:
        """Map the share of steps to the share of the way, both in [0, 1]."""


class LinearRate(_Between):
    """From one rate to another in a straight line.

    Args:
        start: Rate of the first batch, in (0, 1].
        end: Rate from ``num_steps`` on, in (0, 1].
        num_steps: Training batches in between.
    """

    def _progress(self, done: float) -> float:
        return done


class CosineRate(_Between):
    """From one rate to another along half a cosine: slowly at both ends.

    Args:
        start: Rate of the first batch, in (0, 1].
        end: Rate from ``num_steps`` on, in (0, 1].
        num_steps: Training batches in between.
    """

    def _progress(self, done: float) -> float:
        return (1 - math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class StepwiseRate(RateSchedule):
    """One rate after another.

    Args:
        rates: The rates, each in (0, 1].
        steps: Training batches at which the second, third, … begins: one fewer than rates, ascending.
    """

    rates: list[float]
    steps: list[int]

    def __post_init__(self) -> None:
        require_kind(list | tuple, rates=self.rates, steps=self.steps)
        require_at_least(1, **{f"steps[{number}]": step for number, step in enumerate(self.steps)})
        _check_rates(**{f"rates[{number}]": rate for number, rate in enumerate(self.rates)})
        if len(self.steps) != len(self.rates) - 1 or [0, *self.steps] != sorted({0, *self.steps}):
            raise ValueError(
                f"steps={shown(self.steps)} must be ascending numbers above 0, one fewer than rates="
                f"{shown(self.rates)}: where the second rate begins, where the third, and so on."
            )

    def at(self, step: int | None) -> float:
        """Look up."""
        if step is None:
            return self.rates[-1]
        return self.rates[sum(step >= begin for begin in self.steps)]


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not is_number(rate) or not 0 < rate <= 1:
            raise ValueError(f"{name}={shown(rate)} must lie in (0, 1]. 0.15 is usual.")
