"""The LightningModule that pretrains GAU-α as a masked language model.

B batch, L length, H hidden size, V vocabulary.
"""

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints import load_weights, plain_names, read_checkpoint, warm_start
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.training.batch import Batch, layout, numbers, with_position_ids, with_targets
from gau_alpha.training.compatibility import (
    check_optimizer_state,
    check_start,
    check_trainer_state,
    stored_arguments,
    validate_and_remap_for_evaluation,
    validate_and_remap_for_training,
)
from gau_alpha.training.fsdp import shard
from gau_alpha.training.hparams import log_hyperparameters, summary_metrics
from gau_alpha.training.logging import TrainingLog, log_epoch
from gau_alpha.training.loss import average_over_targets, masked_lm_loss
from gau_alpha.training.metrics import MaskedLMMetrics
from gau_alpha.training.optimizers import AdamW, OptimizerFactory
from gau_alpha.training.pooling import first_token, mean_token
from gau_alpha.training.schedules import Cosine, FollowingSchedule, ResumableSchedule, Schedule
from gau_alpha.untrusted.limits import require_path, require_whole
from gau_alpha.untrusted.registry import built, shown
from gau_alpha.untrusted.trust import named_classes, trusting

# Lightning tells that the module's hook is taken where there is a data module too, which is what is meant.
warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer` in `LightningModule` but")


class GAUAlphaModule(LightningModule):
    """Pretrains GAU-α on batches of ``input_ids``, ``attention_mask`` and ``labels`` (−100 off target).

    The gradient of an optimizer step is that of the mean loss over all its targets, over all ranks and accumulated
    batches, however the step was cut into pieces.

    Args:
        config: Sizes and rates of the model.
        train_length: Tokens per training row. In a config file it is filled in from the data.
        method: The attention method. Default: dot product, no scaling, RoPE, everything visible.
        optimizer: What steps the weights, and at which rates. Default: AdamW.
        schedule: How the rate moves over the run. Default: Cosine.
        kernel: How attention is computed: ``auto``, ``blocked`` or ``reference``.
        init_from: A Hugging Face folder or a checkpoint to start from: its weights, no optimizer state. It may have
            more layers than ``config`` asks for. Nothing need be there where a checkpoint to go on with is given.
        activation_checkpointing: Whether training keeps only each layer's input and computes the rest again for the
            gradient: a third more work, for rows that are too long otherwise.

    Raises:
        ValueError: If ``method`` was built for another ``train_length``, or the weights of ``init_from`` are of other
            sizes than ``config`` says. When a run begins, if there is nothing at
            ``init_from`` and no checkpoint was loaded.
    """

    def __init__(
        self,
        config: GAUAlphaConfig,
        train_length: int,
        method: AttentionMethod | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: Schedule | None = None,
        kernel: str = "auto",
        init_from: str | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        objects = (
            ("config", config, GAUAlphaConfig),
            ("method", method, AttentionMethod),
            ("optimizer", optimizer, OptimizerFactory),
            ("schedule", schedule, Schedule),
        )
        for name, value, kind in objects:
            if not isinstance(value, kind) and (value is not None or name == "config"):
                raise ValueError(f"{name} must be a {kind.__name__}, got {shown(value)}.")
        require_whole("train_length", train_length)
        if not isinstance(kernel, str):
            raise ValueError(f"kernel must be a name, got {shown(kernel)}.")
        if init_from is not None:
            require_path("init_from", init_from)
        self.train_length = train_length
        self.optimizer = optimizer or self.default_optimizer()
        self._resumable_schedule = ResumableSchedule(schedule or self.default_schedule())
        bound = (method or AttentionMethod()).with_train_length(train_length)
        self.model = self._build_model(config, bound, kernel)
        self.model.train_length = train_length
        self.model.gau_alpha.encoder.activation_checkpointing = activation_checkpointing
        # A checkpoint to go on with brings the weights; the run that wrote it may have started from what is gone now.
        self._missing_start = init_from if init_from is not None and not Path(init_from).exists() else None
        if init_from is not None and self._missing_start is None:
            self._start_from(init_from)
        self.train_metrics = self._build_metrics("train/")
        self.validation_metrics = self._build_metrics("validation/")
        self.test_metrics = self._build_metrics("test/")
        # Plain data, so that a checkpoint is read without unpickling; without init_from, which is the run's record.
        self.save_hyperparameters(
            {
                "config": asdict(config),
                "train_length": train_length,
                "method": bound.describe(),
                "optimizer": self.optimizer.describe(),
                "schedule": self.schedule.describe(),
                "kernel": kernel,
            },
            logger=False,  # see on_fit_start
        )
        self._step_targets: Tensor | None = None
        self._training_log = TrainingLog(self)

    @property
    def schedule(self) -> Schedule:
        """How the rate moves over the run."""
        return self._resumable_schedule.schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._resumable_schedule.schedule = schedule

    def configure_model(self) -> None:
        """Deal the weights over processes, where the strategy says how; all others leave the model whole."""
        shard(self.model, self.device_mesh)

    def forward(self, input_ids: Tensor, **layout: Tensor) -> Tensor:
        """Predict tokens.

        Args:
            input_ids: (B, L) int64.
            **layout: Further arguments of ``GAUAlphaForMaskedLM.forward``.

        Returns:
            Logits (B, L, V).
        """
        return self.model(input_ids, **layout)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Find out what the host must know of a batch while it is at hand, and draw position ids for training."""
        if self.trainer.predicting:
            return batch
        return self.prepare(batch, self.current_epoch if self.trainer.training else None)

    def prepare(self, batch: Batch, epoch: int | None = None) -> Batch:
        """Add to a collated batch what would make the host wait later; a pure function.

        Args:
            batch: Tensors on the CPU.
            epoch: Whose position ids are drawn, where the method draws any for training. None outside training.
        """
        if epoch is not None:
            batch = with_position_ids(batch, self.model.method, epoch)
        return self._with_targets(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss; ``on_before_optimizer_step`` divides the gradient by the number of targets."""
        nll, correct, count = self.training_loss(batch, self.current_epoch)
        self.train_metrics.add(nll, correct, count)
        self._step_targets = count if self._step_targets is None else self._step_targets + count
        return nll

    def training_loss(self, batch: Batch, epoch: int) -> tuple[Tensor, Any, Tensor]:
        """Evaluate as a training step does.

        Args:
            batch: As a training step gets it; what ``prepare`` would have added is added now.
            epoch: See ``prepare``.

        Returns:
            Summed loss, right predictions and number of targets, () each.
        """
        return self._evaluate(self.prepare(batch, epoch))

    def average_gradients(self) -> None:
        """Turn gradients of sums into gradients of the mean over all targets of the step, once."""
        if self._step_targets is not None:
            average_over_targets(self, self._step_targets)
            self._step_targets = None

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Average gradients, unless a callback has: hooks of callbacks run before that of the module."""
        self.average_gradients()
        self._training_log.learning_rate = optimizer.param_groups[0]["lr"]

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip gradients as the trainer says.

        Under bf16-mixed Lightning would refuse to clip for a fused optimizer, which is right only where a scaler has
        scaled the gradients.

        Args:
            optimizer: The optimizer.
            gradient_clip_val: The trainer's.
            gradient_clip_algorithm: The trainer's.
        """
        plugin = self.trainer.precision_plugin
        if gradient_clip_val and isinstance(plugin, MixedPrecision) and plugin.scaler is None:
            algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
            Precision.clip_gradients(plugin, optimizer, gradient_clip_val, algorithm)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log learning rate and training metrics over all targets since they were last logged, at optimizer steps."""
        at_optimizer_step = self._step_targets is None
        if at_optimizer_step and (loss := self._training_log.log_when_due(self.trainer)) is not None:
            self.log("loss", loss, prog_bar=True, logger=False)

    def on_train_start(self) -> None:
        """Take up what the interrupted run had counted."""
        self.restore_metric_state()

    def restore_metric_state(self) -> None:
        """Take up what a checkpoint's run had counted when it was saved, and log it if it was about to."""
        self._training_log.restore_metric_state(self.trainer)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count losses and right predictions at the targets."""
        self.validation_metrics.add(*self._evaluate(batch))

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and accuracy over all targets of all ranks."""
        log_epoch(self, self.validation_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count losses and right predictions at the targets."""
        self.test_metrics.add(*self._evaluate(batch))

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and accuracy over all targets of all ranks."""
        log_epoch(self, self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed texts.

        Returns:
            ``sample_ids`` (B,), the numbers of the rows, where the batch has them; ``num_tokens`` (B,); ``mean`` (B, H)
            float32, the average of the last layer's hidden states over real tokens; ``first`` (B, H) float32, that of
            the first token. A row without tokens gets zeros.
        """
        hidden = self.model(**layout(batch), head=False)  # (B, L, H)
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))  # (B, L)
        return {
            **numbers(batch),
            "num_tokens": mask.sum(1),
            "mean": mean_token(hidden, mask),
            "first": first_token(hidden, mask).float(),
        }

    def on_fit_start(self) -> None:
        """See that there are weights to start from, and tell loggers what the run was set to."""
        check_start(self, self._missing_start)
        if self.trainer.is_global_zero:
            log_hyperparameters(self.loggers, self.hparams, summary_metrics(self.trainer, self.validation_metrics))

    def on_validation_start(self) -> None:
        """See that there are weights to evaluate."""
        check_start(self, self._missing_start)

    on_test_start = on_predict_start = on_validation_start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the schedule was made for, so that a run of another length can go on from it.

        And what is counted, but not yet logged: on all processes, since they count together.
        """
        checkpoint["schedule"] = self._resumable_schedule.state()
        checkpoint["train_metrics"] = self._training_log.state(self.trainer)
        if "state_dict" in checkpoint:  # a sharded strategy adds the weights itself
            checkpoint["state_dict"] = OrderedDict(plain_names(checkpoint["state_dict"]))  # as torch has it

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint's model is this one, before its weights are loaded.

        Raises:
            ValueError: If sizes differ, anything but training is asked for on rows of another length, or training
                should go on from weights alone; or if its hyperparameters are none of this class.
        """
        if "hyper_parameters" in checkpoint:
            # What the module is made of was named by whoever made it.
            with trusting(named_classes(dict(self.hparams), alone=False)):
                self.stored_arguments(checkpoint["hyper_parameters"], "The checkpoint")
        self._missing_start = None
        check_trainer_state(checkpoint, self.trainer)
        if self.trainer.state.fn is TrainerFn.FITTING:
            validate_and_remap_for_training(checkpoint, self, self.model.config, self.optimizer)
            self._resumable_schedule.resume(checkpoint, self.trainer, self.optimizer.learning_rate)
            self._training_log.remember(checkpoint)
        else:
            validate_and_remap_for_evaluation(checkpoint, self, self.model.config, self.model.method, self.train_length)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | PathLike[str],
        map_location: torch.device | str = "cpu",
        trust: Sequence[str] = (),
        **kwargs: Any,
    ) -> Self:
        """Build the module that a checkpoint was saved from, reading nothing but plain data.

        Args:
            checkpoint_path: The file.
            map_location: The device that the module is put on.
            trust: Classes of your own that the file may name, such as ``my_scaling.PowerLaw``; it can name no other.
            **kwargs: Arguments of the constructor that take the place of the stored ones.

        Raises:
            ValueError: If it is no checkpoint of a ``GAUAlphaModule``, or names a class that is neither ours nor
                trusted.
        """
        path = str(checkpoint_path)
        checkpoint = read_checkpoint(checkpoint_path)
        with trusting(trust):
            described = cls.stored_arguments(checkpoint["hyper_parameters"], path)
            module = cls(**{**built(described), **kwargs})
        load_weights(module, checkpoint["state_dict"], str(checkpoint_path))
        return module.to(map_location)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedule, stepped once per optimizer step."""
        # Lightning cannot clip the scaled gradients of a fused optimizer.
        optimizer = self.optimizer.build(self.model, fused=self.trainer.precision != "16-mixed")
        self._resumable_schedule.begin(self.trainer)
        optimizer.register_load_state_dict_pre_hook(check_optimizer_state)
        scheduler = FollowingSchedule(optimizer, self._resumable_schedule)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # What another task does otherwise; see GAUAlphaFineTuning.

    @staticmethod
    def default_optimizer() -> OptimizerFactory:
        """Make the optimizer that is taken where none is given."""
        return AdamW()

    @staticmethod
    def default_schedule() -> Schedule:
        """Make the schedule that is taken where none is given."""
        return Cosine()

    def _build_model(self, config: GAUAlphaConfig, method: AttentionMethod, kernel: str) -> Any:
        return GAUAlphaForMaskedLM(config, method, kernel)

    def _start_from(self, source: str) -> None:
        warm_start(self.model, source)

    def _build_metrics(self, prefix: str) -> Any:
        return MaskedLMMetrics(prefix)

    @classmethod
    def stored_arguments(cls, stored: dict[str, Any], path: str) -> dict[str, Any]:
        """Hold the hyperparameters of a checkpoint against the constructor; nothing is built yet.

        Args:
            stored: What the checkpoint holds.
            path: Of the checkpoint, for messages.

        Returns:
            The constructor's arguments; see ``gau_alpha.training.compatibility.stored_arguments``.

        Raises:
            ValueError: If they are of another task, or do not fit.
        """
        if "head" in stored:
            head = stored["head"].get("class_path") if isinstance(stored["head"], dict) else stored["head"]
            raise ValueError(
                f"{path} holds a model with the head {shown(head)}, which predicts no hidden tokens: open it with "
                f"GAUAlphaFineTuning."
            )
        return stored_arguments(cls, stored, path)

    def _with_targets(self, batch: Batch) -> Batch:
        return with_targets(batch)

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Any, Tensor]:
        """Return summed loss, right predictions and number of targets, () each: what metrics add."""
        return masked_lm_loss(self.model, batch)
