"""Mean and spread over checkpoints that differ in nothing but the seed of their training."""

import math
from dataclasses import dataclass

import numpy as np

from gau_alpha.extrapolation import ExtrapolationResult, Status
from gau_alpha.extrapolation.report.results import Results
from gau_alpha.extrapolation.statistics import student


@dataclass(frozen=True)
class Summary:
    """A method at a length over several checkpoints, all of them measured.

    Attributes:
        group: The method.
        length: Tokens.
        num_checkpoints: How many.
        loss: Mean loss in nats.
        loss_deviation: Sample standard deviation of the losses (n − 1).
        accuracy: Mean accuracy.
        accuracy_deviation: Sample standard deviation.
        low: Smallest perplexity among them.
        high: Largest.
        protocol: Which positions were masked.
    """

    group: str
    length: int
    num_checkpoints: int
    loss: float
    loss_deviation: float
    accuracy: float
    accuracy_deviation: float
    low: float
    high: float
    protocol: str

    @property
    def perplexity(self) -> float:
        """Exp of the mean loss: the geometric mean of the perplexities."""
        return math.exp(self.loss)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean loss over seeds (Student's t), in nats."""
        reach = student(self.num_checkpoints - 1) * self.loss_deviation / math.sqrt(self.num_checkpoints)
        return self.loss - reach, self.loss + reach

    def as_dict(self) -> dict[str, float | int | str]:
        """Plain data."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "perplexity": self.perplexity}


def summaries(results: Results) -> list[Summary]:
    """Sums up every (group, length) of which two or more rows have numbers and none lacks them; no probe.

    Args:
        results: What to sum up.
    """
    if results.is_probe:
        return []
    members: dict[tuple[str, int], list[ExtrapolationResult]] = {}
    for row in results.rows:
        if row.group:
            members.setdefault((row.group, row.length), []).append(row)
    found = []
    for (group, length), mine in members.items():
        if len(mine) < 2 or any(row.status is not Status.OK for row in mine):
            continue
        losses, accuracies, perplexities = (
            np.array([getattr(row, name) for row in mine], np.float64) for name in ("loss", "accuracy", "perplexity")
        )
        found.append(
            Summary(
                group=group,
                length=length,
                num_checkpoints=len(mine),
                loss=float(losses.mean()),
                loss_deviation=float(losses.std(ddof=1)),
                accuracy=float(accuracies.mean()),
                accuracy_deviation=float(accuracies.std(ddof=1)),
                low=float(perplexities.min()),
                high=float(perplexities.max()),
                protocol=results.rows[0].protocol,
            )
        )
    return found
