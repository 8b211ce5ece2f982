"""The LightningModule that pretrains GAU-α as a masked language model.

B batch, L length, H hidden size, N targets, V vocabulary.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import GradClipAlgorithmType, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.checkpoint import checkpoint

from gau_alpha.allocation import keep_freed_memory, return_freed_memory
from gau_alpha.checkpoints import check_fit, initialise, load_weights, plain_names, read_checkpoint
from gau_alpha.config import SHAPING, GAUAlphaConfig
from gau_alpha.heads.pooling import first_token, mean_token
from gau_alpha.hyperparameters import HasHeadlines, log_hyperparameters
from gau_alpha.method import AttentionMethod
from gau_alpha.metrics import MaskedLMMetrics, count_on, counted
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.optimization import Cosine, Schedule, build_schedule, parameter_groups
from gau_alpha.presets import method_from
from gau_alpha.sharding import shard

Batch = dict[str, Tensor]
"""Tensors by name, as a data module collates them."""

LOGITS_AT_ONCE = 2**26
"""Logits of a batch beyond so many (256 MiB) are made, used and made again for the gradient in pieces."""


class GAUAlphaModule(LightningModule):
    """Pretrains GAU-α on batches of ``input_ids``, ``attention_mask`` and ``labels`` (−100 off target).

    The gradient of an optimizer step is that of the mean loss over all its targets, over all ranks and accumulated
    batches, however the step was cut into pieces.

    Args:
        config: Sizes and rates of the model.
        train_length: Tokens per training row. In a config file it is filled in from the data.
        method: The attention method. Default: dot product, no scaling, RoPE, everything visible.
        learning_rate: Peak rate of AdamW.
        weight_decay: Decay of matrices; scales, offsets and biases do not decay.
        betas: AdamW's decay rates of the first and second moment.
        schedule: How the rate moves over the run. Default: Cosine.
        kernel: How attention is computed: ``auto``, ``blocked``, ``reference`` or ``fused``.
        init_from: A Hugging Face folder or a checkpoint to start from: its weights, no optimizer state. It may have
            more layers than ``config`` asks for. A checkpoint to go on with replaces these weights, and then there need
            be nothing at ``init_from`` any more.
        recompute: Whether training keeps only each layer's input in memory and computes the rest again for the
            gradient: a third more work, for rows that are too long otherwise.

    Raises:
        ValueError: If ``method`` was built for another ``train_length``, a rate is not positive, or the weights of
            ``init_from`` are of other sizes than ``config`` says. When a run begins, if there is nothing at
            ``init_from`` and no checkpoint was loaded.
    """

    def __init__(
        self,
        config: GAUAlphaConfig,
        train_length: int,
        method: AttentionMethod | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.98),
        schedule: Schedule | None = None,
        kernel: str = "auto",
        init_from: str | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {learning_rate}.")
        self.train_length = train_length
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas = (betas[0], betas[1])
        self.schedule = schedule or Cosine()
        bound = (method or AttentionMethod()).bound(train_length)
        self.model = self._build_model(config, bound, kernel)
        self.model.gau_alpha.encoder.recompute = recompute
        # A checkpoint to go on with brings the weights; the run that wrote it may have started from what is gone now.
        self._missing_start = init_from if init_from is not None and not Path(init_from).exists() else None
        if init_from is not None and self._missing_start is None:
            self._start_from(init_from)
        self.train_metrics = self._build_metrics("train/")
        self.validation_metrics = self._build_metrics("validation/")
        self.test_metrics = self._build_metrics("test/")
        # Not init_from: where training started is the run's record, and no part of what the checkpoint is. Nor
        # recompute, which changes no number.
        # Plain data, under the names of the arguments: a checkpoint can be read without unpickling anything of ours.
        self.save_hyperparameters(
            {
                "config": asdict(config),
                "train_length": train_length,
                "method": bound.describe(),
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "betas": list(self.betas),
                "schedule": self.schedule.describe(),
                "kernel": kernel,
            },
            logger=False,  # see on_fit_start
        )
        self._step_targets: Tensor | None = None
        self._rate = 0.0  # of the last step
        self._counted: dict[str, Any] | None = None  # training metrics of a checkpoint that were not yet logged
        self._total_steps = 0
        self._rate_ceiling = 1.0  # factor of the rate that a resumed run does not rise above

    def setup(self, stage: str) -> None:
        """On a CPU, let training keep the memory it frees."""
        if stage == "fit" and self.trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()

    def teardown(self, stage: str) -> None:
        """Give back what training kept."""
        if stage == "fit" and self.trainer.strategy.root_device.type == "cpu":
            return_freed_memory()

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

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the summed loss; ``on_before_optimizer_step`` divides the gradient by the number of targets."""
        nll, correct, count = self.evaluate_as_trained(batch, self.current_epoch)
        self.train_metrics.add(nll, correct, count)
        self._step_targets = count if self._step_targets is None else self._step_targets + count
        return nll

    def evaluate_as_trained(self, batch: Batch, epoch: int) -> tuple[Tensor, Any, Tensor]:
        """Evaluate as a training step does.

        Args:
            batch: As a training step gets it.
            epoch: Whose position ids are drawn, where the method draws any.

        Returns:
            Summed loss, right predictions and number of targets, () each.
        """
        position = self.model.method.position
        if position.draws_ids:
            length = batch["input_ids"].shape[-1]
            ids = position.training_ids(batch["sample_ids"].tolist(), epoch, length)  # (B, L)
            batch = {**batch, "position_ids": ids.to(self.device)}
        return self._evaluate(batch)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Turn gradients of sums into gradients of the mean over all targets of the step."""
        assert self._step_targets is not None
        targets = self.trainer.strategy.reduce(self._step_targets, reduce_op="sum")
        # Lightning divides by the accumulated batches, DDP and FSDP by the ranks.
        pieces = self.trainer.accumulate_grad_batches * self.trainer.world_size
        factor = pieces / cast(Tensor, targets).clamp_min(1)
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor.to(parameter.grad.dtype))
        self._step_targets = None
        self._rate = optimizer.param_groups[0]["lr"]

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
        if self._step_targets is None and self._logs_now():
            loss = self._log_training()
            self.log("loss", loss, prog_bar=True, logger=False)

    def on_train_start(self) -> None:
        """Take up what the interrupted run had counted."""
        self.count_on()

    def count_on(self) -> None:
        """Take up what a checkpoint's run had counted when it was saved, and log it if it was about to."""
        before, self._counted = self._counted, None
        if before is None:
            return
        share = int(self.trainer.is_global_zero)  # the sums are of all processes
        shares = {name: {state: share * x for state, x in sums.items()} for name, sums in before["sums"].items()}
        count_on(self.train_metrics, shares)
        self._rate = before["rate"]
        if before["sums"]["loss"]["count"] and self._logs_now():
            self._log_training()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count losses and right predictions at the targets."""
        self.validation_metrics.add(*self._evaluate(batch))

    def on_validation_epoch_end(self) -> None:
        """Log loss, perplexity and accuracy over all targets of all ranks."""
        self._log_epoch(self.validation_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count losses and right predictions at the targets."""
        self.test_metrics.add(*self._evaluate(batch))

    def on_test_epoch_end(self) -> None:
        """Log loss, perplexity and accuracy over all targets of all ranks."""
        self._log_epoch(self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Embed texts.

        Returns:
            ``sample_ids`` (B,), the numbers of the rows; ``num_tokens`` (B,); ``mean`` (B, H) float32, the average of
            the last layer's hidden states over real tokens; ``first`` (B, H) float32, that of the first token. A row
            without tokens gets zeros.
        """
        hidden, mask = self.model(**_layout(batch), head=False), batch["attention_mask"]  # (B, L, H), (B, L)
        return {
            "sample_ids": batch["sample_ids"],
            "num_tokens": mask.sum(1),
            "mean": mean_token(hidden, mask),
            "first": first_token(hidden, mask).float(),
        }

    def on_fit_start(self) -> None:
        """See that there are weights to start from, and tell loggers what the run was set to."""
        self._check_start()
        if self.trainer.is_global_zero:
            callbacks = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
            headlines = [name for one in callbacks if isinstance(one, HasHeadlines) for name in one.headlines()]
            if self.trainer.enable_validation:
                headlines += map(str, self.validation_metrics.keys())
            log_hyperparameters(self.loggers, self.hparams, headlines)

    def on_validation_start(self) -> None:
        """See that there are weights to evaluate."""
        self._check_start()

    def on_test_start(self) -> None:
        """See that there are weights to evaluate."""
        self._check_start()

    def on_predict_start(self) -> None:
        """See that there are weights to predict with."""
        self._check_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the schedule was made for, so that a run of another length can go on from it.

        And what is counted, but not yet logged: on all processes, since they count together.
        """
        checkpoint["schedule"] = {"total_steps": self._total_steps, "rate_ceiling": self._rate_ceiling}
        sums = counted(self.train_metrics, lambda value: self.trainer.strategy.reduce(value, reduce_op="sum"))
        checkpoint["train_metrics"] = {"rate": self._rate, "sums": sums}
        if "state_dict" in checkpoint:  # a sharded strategy adds the weights itself
            checkpoint["state_dict"] = OrderedDict(plain_names(checkpoint["state_dict"]))  # as torch has it

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint's model is this one, before its weights are loaded.

        Raises:
            ValueError: If sizes differ, anything but training is asked for on rows of another length, or training
                should go on from weights alone.
        """
        self._missing_start = None
        stored = checkpoint.get("hyper_parameters", {})
        own = asdict(self.model.config)
        differing = [
            f"{name} is {value} in the checkpoint and {own[name]} here"
            for name, value in stored.get("config", {}).items()
            if name in SHAPING and own[name] != value
        ]
        if differing:
            raise ValueError(f"The checkpoint holds another model: {'; '.join(differing)}.")
        trained = stored.get("train_length", self.train_length)
        if trained != self.train_length and self.trainer.state.fn is not TrainerFn.FITTING:
            raise ValueError(
                f"The checkpoint was trained on rows of {trained} tokens, but the data has train_length "
                f"{self.train_length}, which methods would take for the length of training. Other lengths are "
                f"measured by `gau-alpha extrapolate`."
            )
        if self.trainer.state.fn is not TrainerFn.FITTING:
            self._put_untrained_strategies(checkpoint)
        elif "optimizer_states" not in checkpoint:
            raise ValueError(
                "The checkpoint holds weights only, no state of the optimizer: training can't go on from it. Start a "
                "new run from its weights with --model.init_from."
            )
        else:
            self._keep_below(checkpoint)
            self._counted = checkpoint.get("train_metrics")
        if "state_dict" in checkpoint:  # a sharded strategy loads the weights itself, and takes them out before
            own = {plain: name for name, plain in zip(self.state_dict(), plain_names(self.state_dict()), strict=True)}
            weights = plain_names(checkpoint["state_dict"])
            checkpoint["state_dict"] = {own.get(name, name): tensor for name, tensor in weights.items()}
            check_fit(self, checkpoint["state_dict"], "the checkpoint")

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | PathLike[str], map_location: torch.device | str = "cpu", **kwargs: Any
    ) -> Self:
        """Build the module that a checkpoint was saved from, reading nothing but plain data.

        Args:
            checkpoint_path: The file.
            map_location: The device that the module is put on.
            **kwargs: Arguments of the constructor that take the place of the stored ones.

        Raises:
            ValueError: If it is no checkpoint of a ``GAUAlphaModule``.
        """
        checkpoint = read_checkpoint(checkpoint_path)
        module = cls(**{**cls._stored_arguments(checkpoint["hyper_parameters"], str(checkpoint_path)), **kwargs})
        load_weights(module, checkpoint["state_dict"], str(checkpoint_path))
        return module.to(map_location)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build AdamW and the schedule, stepped once per optimizer step."""
        optimizer = AdamW(
            parameter_groups(self.model, self.weight_decay),
            lr=self.learning_rate,
            betas=self.betas,
            # Lightning cannot clip the scaled gradients of a fused optimizer.
            fused=self.trainer.precision != "16-mixed",
        )
        self._total_steps = total_steps = self._count_steps()
        scheduler = LambdaLR(optimizer, lambda step: min(self._rate_ceiling, self.schedule.factor(step, total_steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _count_steps(self) -> int:
        """Count the optimizer steps of the whole run.

        Raises:
            ValueError: If nothing says when the run ends.
        """
        steps = self.trainer.estimated_stepping_batches
        if not 0 <= steps < math.inf:
            raise ValueError(
                "The schedule needs to know how many steps there will be, and the data has no length: set "
                "trainer.max_steps."
            )
        # For the answer Lightning may have made the training loader, too early: the position in a checkpoint is only
        # given to a loader that is made after the checkpoint's loops are read (Lightning's issue 20550). Without one it
        # makes another.
        self.trainer.fit_loop._combined_loader = None
        return int(steps)

    # What another task does otherwise; see GAUAlphaFineTuning.

    def _build_model(self, config: GAUAlphaConfig, method: AttentionMethod, kernel: str) -> Any:
        return GAUAlphaForMaskedLM(config, method, kernel)

    def _start_from(self, source: str) -> None:
        initialise(self.model, source)

    def _build_metrics(self, prefix: str) -> Any:
        return MaskedLMMetrics(prefix)

    @classmethod
    def _stored_arguments(cls, stored: dict[str, Any], path: str) -> dict[str, Any]:
        """Turn the hyperparameters of a checkpoint into the constructor's arguments."""
        if "head" in stored:
            raise ValueError(
                f"{path} holds a model with the head {stored['head']['class_path']}, which predicts no hidden tokens: "
                f"open it with GAUAlphaFineTuning."
            )
        return constructor_arguments(stored)

    def _check_start(self) -> None:
        if self._missing_start is not None:
            raise ValueError(
                f"There is nothing at model.init_from {self._missing_start!r} to start from, and no checkpoint to go "
                f"on with: correct the path, or name a checkpoint with --ckpt_path."
            )

    def _keep_below(self, checkpoint: dict[str, Any]) -> None:
        """Follow the curve of a changed number of steps, but never above the rate of a decay that has begun."""
        stored = checkpoint.get("schedule")
        if not isinstance(stored, dict):
            return  # from before this was kept
        self._rate_ceiling = float(stored["rate_ceiling"])
        before, now = int(stored["total_steps"]), self._count_steps()
        step = int(checkpoint["global_step"])
        if before == now or step < self.schedule.warmup * before:
            return
        self._rate_ceiling = min(self._rate_ceiling, self.schedule.factor(step, before))
        if self._rate_ceiling <= 0:
            raise ValueError(
                f"The checkpoint's schedule ended at step {before} with a learning rate of 0, above which a resumed "
                f"run does not rise: {now} steps would change nothing. Start a new run from its weights with "
                "--model.init_from, go on from an earlier checkpoint, or set the schedule's `final` above 0."
            )
        rank_zero_warn(
            f"The schedule was made for {before} optimizer steps, and is now for {now}: from step {step} the learning "
            f"rate follows the new curve, but stays at or below {self._rate_ceiling * self.learning_rate:.3g}."
        )

    def _evaluate(self, batch: Batch) -> tuple[Tensor, Any, Tensor]:
        """Return summed loss, right predictions and number of targets, () each: what metrics add."""
        labels = batch["labels"].flatten()  # (B · L,)
        target_index = (labels != -100).nonzero().squeeze(1)  # (N,)
        targets = labels[target_index]  # (N,)
        count = torch.tensor(len(targets), device=labels.device)
        at_once = max(1, LOGITS_AT_ONCE // self.model.config.vocab_size)
        if len(targets) <= at_once:
            logits = self.model(**_layout(batch), target_index=target_index)  # (N, V)
            return *_sums(logits, targets), count
        hidden = self.model(**_layout(batch), target_index=target_index, head=False)  # (N, H)
        pieces = [
            cast(tuple[Tensor, Tensor], checkpoint(self._sums_of, *piece, use_reentrant=False))
            for piece in zip(hidden.split(at_once), targets.split(at_once), strict=True)
        ]
        nlls, corrects = (torch.stack(parts) for parts in zip(*pieces, strict=True))  # (pieces,)
        return nlls.sum(), corrects.sum(), count

    def _sums_of(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _sums(self.model.cls(hidden), targets)

    def _put_untrained_strategies(self, checkpoint: dict[str, Any]) -> None:
        """Let another strategy than the trained one load: what it would have learned stays as it starts."""
        if "state_dict" not in checkpoint:
            return  # as above
        trained = checkpoint.get("hyper_parameters", {}).get("method", {})
        weights, own = checkpoint["state_dict"], self.state_dict()
        for axis, strategy in self.model.method.axes():
            if trained.get(axis, {}).get("class_path") == strategy.describe()["class_path"]:
                continue
            part = f".gau.method.{axis}."
            learned = {name: tensor for name, tensor in own.items() if part in name}
            if learned:
                rank_zero_warn(f"{strategy!r} is learned in training, and this checkpoint was trained without it.")
            checkpoint["state_dict"] = weights = {
                **{name: tensor for name, tensor in weights.items() if part not in name},
                **learned,
            }

    def _logs_now(self) -> bool:
        return self.trainer.global_step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    def _log_training(self) -> Tensor:
        """Log what was counted, and return the loss."""
        metrics = self.train_metrics.compute()
        self.train_metrics.reset()
        self._log({**metrics, "train/learning_rate": self._rate})
        return metrics["train/loss"].float()

    def _log(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Log against the optimizer step."""
        for logger in self.loggers:
            logger.log_metrics({name: float(value) for name, value in metrics.items()}, step=self.trainer.global_step)

    def _log_epoch(self, metrics: MaskedLMMetrics) -> None:
        # computed values, equal on all ranks; float64 does not exist on every device
        values = {name: value.float() for name, value in metrics.compute().items()}
        metrics.reset()
        training = self.trainer.state.fn is TrainerFn.FITTING
        self.log_dict(values, prog_bar=True, rank_zero_only=False, logger=False if training else None)
        if training and not self.trainer.sanity_checking:
            # Lightning would log at the number of the step before.
            self._log({**values, "epoch": self.current_epoch})


def constructor_arguments(stored: dict[str, Any]) -> dict[str, Any]:
    """Turn the hyperparameters of a checkpoint into the constructor's arguments that every task has."""
    return {
        **{name: stored[name] for name in ("train_length", "learning_rate", "weight_decay", "betas", "kernel")},
        "config": GAUAlphaConfig(**stored["config"]),
        "method": method_from(stored["method"]),
        "schedule": build_schedule(stored["schedule"]),
    }


def _sums(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum losses and count right predictions of (N, V) logits, in float32."""
    logits = logits.float()
    nll = F.cross_entropy(logits, targets, reduction="sum")  # 0 for N = 0, still part of the graph
    return nll, (logits.argmax(-1) == targets).sum()


def _layout(batch: Batch) -> Batch:
    names = ("input_ids", "attention_mask", "position_ids", "segment_ids")
    return {name: batch[name] for name in names if name in batch}
