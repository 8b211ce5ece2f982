"""Logging against the optimizer step, each count once however often a run is interrupted."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torchmetrics import MetricCollection

from gau_alpha.checkpoints import check_form
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.training.metrics import metric_state, restore_metric_state
from gau_alpha.untrusted.limits import require_number


class Counts(Protocol):
    """What counts in training."""

    train_metrics: MetricCollection
    """Count losses by the name ``loss``."""


class TrainingLog:
    """What was counted in training since it was last logged.

    Args:
        module: Its ``train_metrics`` are logged, whichever they are by then.
    """

    def __init__(self, module: Counts) -> None:
        self._module = module
        self.learning_rate = 0.0  # of the last step
        self._interrupted: dict[str, Any] | None = None

    @property
    def metrics(self) -> MetricCollection:
        """What has counted."""
        return self._module.train_metrics

    def log_when_due(self, trainer: Trainer) -> Tensor | None:
        """Log learning rate and metrics, over all targets of all ranks, at every so many optimizer steps.

        Args:
            trainer: Just done with a step.

        Returns:
            The loss, () float32; None if it was not yet time.
        """
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it; 0: never
        if not every or trainer.global_step % every:
            return None
        values = self.metrics.compute()
        self.metrics.reset()
        log_at_step(trainer, {**values, f"{self.metrics.prefix}learning_rate": self.learning_rate})
        return values[f"{self.metrics.prefix}loss"].float()

    def state(self, trainer: Trainer) -> dict[str, Any]:
        """Return what a checkpoint keeps under ``train_metrics``; a collective.

        Args:
            trainer: Sums over all processes, since they count together.
        """
        sums = metric_state(self.metrics, lambda value: trainer.strategy.reduce(value, reduce_op="sum"))
        return {"rate": self.learning_rate, "sums": sums}

    def remember(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the checkpoint's run had counted until Lightning's loops are restored, too.

        Args:
            checkpoint: Holds ``train_metrics``, unless it is from before that was kept.

        Raises:
            ValueError: If other metrics were counted, or the entry is not what ``state`` returns.
        """
        stored = checkpoint.get("train_metrics")
        if stored is None:
            return
        own = metric_state(self.metrics, lambda value: value)
        check_form(stored, {"rate": 0.0, "sums": own}, "The checkpoint's train_metrics")
        rate, sums = stored.get("rate"), stored.get("sums") or {}
        require_number("The checkpoint's train_metrics.rate", rate)
        self._interrupted = {"rate": rate, "sums": {name: sums.get(name) or {} for name in own}}

    def restore_metric_state(self, trainer: Trainer) -> None:
        """Take up what an interrupted run had counted, if any, and log it if that was about to.

        Args:
            trainer: At the step of the checkpoint.

        Raises:
            ValueError: If other metrics were counted.
        """
        before, self._interrupted = self._interrupted, None
        if before is None:
            return
        share = int(trainer.is_global_zero)  # the sums are of all processes
        shares = {name: {state: share * x for state, x in sums.items()} for name, sums in before["sums"].items()}
        restore_metric_state(self.metrics, shares)
        self.learning_rate = before["rate"]
        if before["sums"]["loss"]["count"]:
            self.log_when_due(trainer)


def log_epoch(module: LightningModule, metrics: MetricCollection) -> None:
    """Log what was counted in an evaluation, over all targets of all ranks, and begin to count anew.

    Args:
        module: At the end of the evaluation.
        metrics: What it has counted.
    """
    # computed values, equal on all ranks; float64 does not exist on every device
    values = {name: value.float() for name, value in metrics.compute().items()}
    metrics.reset()
    training = module.trainer.state.fn is TrainerFn.FITTING
    module.log_dict(values, prog_bar=True, rank_zero_only=False, logger=False if training else None)
    if training and not module.trainer.sanity_checking:
        # Lightning would log at the number of the step before.
        log_at_step(module.trainer, {**values, "epoch": module.current_epoch})


def log_at_step(trainer: Trainer, values: Mapping[str, Tensor | float]) -> None:
    """Log against the optimizer step.

    Args:
        trainer: Its loggers are written to.
        values: By name, () each.
    """
    if not trainer.loggers:
        return
    numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    if tensors:  # all at once: the host waits for the device one time
        numbers |= dict(zip(tensors, torch.stack([value.detach() for value in tensors.values()]).tolist(), strict=True))
    for logger in trainer.loggers:
        logger.log_metrics({name: numbers[name] for name in values}, step=trainer.global_step)


def log_image(logger: Logger, name: str, image: Any, step: int) -> None:
    """Hand an image to a logger in the way that it has for it; to be called on the first process.

    What is asked is what a logger can do, not which it is: TensorBoard's writer has ``add_image``, W&B's logger
    ``log_image``, and MLflow's client ``log_image`` for a run. Others with a folder for the run get a PNG in it.

    Args:
        logger: Any of Lightning's, or one with the same interface.
        name: Of the image, such as ``extrapolation/perplexity``.
        image: (height, width, 3) uint8.
        step: The optimizer step.
    """
    experiment: Any = getattr(logger, "experiment", None)
    if hasattr(experiment, "add_image"):
        experiment.add_image(name, image, step, dataformats="HWC")
    elif hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[image], step=step)
    elif hasattr(experiment, "log_image") and hasattr(logger, "run_id"):
        experiment.log_image(logger.run_id, image, artifact_file=f"{name}_step_{step:06}.png")
    elif isinstance(folder := getattr(logger, "log_dir", None), str | PathLike):
        write_atomic(Path(folder) / f"{name}_step_{step:06}.png", lambda path: _write_png(path, image))


def _write_png(path: Path, image: Any) -> None:
    from matplotlib.image import imsave  # takes a while to import

    imsave(path, image, format="png")
