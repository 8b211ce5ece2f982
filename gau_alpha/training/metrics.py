"""Averages over tokens, kept as sums and counts so that no average is ever averaged again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric, MetricCollection


class TokenAverage(Metric):
    """Σ values / Σ counts over all tokens seen, across batches and processes.

    The sum is kept in float64 and the count in int64, whatever the model's precision: in bfloat16 a count would stop
    growing at 256.

    Args:
        **kwargs: torchmetrics'.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor) -> None:
        """Add a batch.

        Args:
            total: () sum of the values over the batch's tokens.
            count: () number of these tokens.
        """
        self.total += total.detach()
        self.count += count

    def compute(self) -> Tensor:
        """Return the average, () float64; NaN if nothing was counted."""
        return self.total / self.count

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        # torchmetrics guards its states against half() and bfloat16(), but not against to(torch.bfloat16).
        def move_only(state: Tensor) -> Tensor:
            moved = fn(state)
            return moved if moved.dtype == state.dtype else state.to(moved.device)

        return super()._apply(move_only, exclude_state)


class Perplexity(TokenAverage):
    """exp of the average loss in nats, over all targets at once."""

    def compute(self) -> Tensor:
        """Return the perplexity, () float64."""
        return super().compute().exp()


class MaskedLMMetrics(MetricCollection):
    """Loss in nats, perplexity and accuracy at the targets, by the names ``loss``, ``perplexity``, ``accuracy``.

    Args:
        prefix: Put before the names, such as ``validation/``.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__(
            {"loss": TokenAverage(), "perplexity": Perplexity(), "accuracy": TokenAverage()},
            prefix=prefix,
            compute_groups=False,
        )

    def add(self, nll: Tensor, correct: Tensor, count: Tensor) -> None:
        """Add a batch.

        Args:
            nll: () summed loss in nats.
            correct: () number of targets predicted right.
            count: () number of targets.
        """
        self["loss"].update(nll, count)
        self["perplexity"].update(nll, count)
        self["accuracy"].update(correct, count)


def metric_state(metrics: MetricCollection, reduce: Callable[[Tensor], Any]) -> dict[str, dict[str, Tensor]]:
    """Read what metrics have counted so far; a collective.

    Args:
        metrics: Metrics whose states are all sums.
        reduce: Sums a tensor over all processes; it may work in place.

    Returns:
        By metric and state, on the CPU.
    """
    return {
        name: {state: reduce(value.clone()).cpu() for state, value in _states(metric).items()}
        for name, metric in metrics.items(keep_base=True)
    }


def restore_metric_state(metrics: MetricCollection, before: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Add what ``metric_state`` has read; on every process but one, give it zeros instead.

    Args:
        metrics: To add to.
        before: What was read, by the names of metrics and of their states.

    Raises:
        ValueError: If it is of other metrics.
    """
    for name, metric in metrics.items(keep_base=True):
        for state, value in _states(metric).items():
            stored = before.get(name, {}).get(state)
            if not isinstance(stored, Tensor) or stored.shape != value.shape:
                raise ValueError(f"The checkpoint's train_metrics lack {name}.{state} of shape {tuple(value.shape)}.")
            setattr(metric, state, value + stored.to(value))
        metric._update_count += 1  # or torchmetrics would warn that nothing was counted


def _states(metric: Any) -> dict[str, Tensor]:
    """Return the states of a metric that keeps sums, and so no lists."""
    return metric.metric_state
