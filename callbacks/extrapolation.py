"""Extrapolation measured while training."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.averaging import averaged_weights
from callbacks.recovery import CatchUpCallback
from callbacks.run_path import shared_run_path
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import TRAINED, resolve_method
from gau_alpha.checkpoints.identity import tokenizer_label
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine, ExtrapolationResult, preserve_training_state
from gau_alpha.extrapolation.options import protocol_names
from gau_alpha.extrapolation.report import Report
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.scaling import CalibratedScale, RandomKeysScale
from gau_alpha.training.logging import log_image
from gau_alpha.untrusted.limits import require_path, require_whole

_METRICS = ("loss", "perplexity", "accuracy", "attention_entropy", "near_share", "sink_share")
_PROBED = {"copy": ("gain", "gain"), "recall": ("recall", "accuracy")}
"""Under probes: what is logged, by which name, and the field of a result."""


class ExtrapolationEvaluation(Callback, CatchUpCallback):
    """Measures the model at multiples of its training length, every so many optimizer steps and when training ends.

    Logs scalars ``extrapolation/<method>/x<ratio>/<metric>`` against the optimizer step, the ratio in three digits so
    that names sort, and, for TensorBoard, the plot; writes the table and the plot to
    ``<output_dir>/extrapolation/step_<n>/``. Training goes on exactly as if nothing had been measured. What it costs is
    logged too: ``extrapolation/seconds`` of an evaluation, ``extrapolation/share_of_time`` of all evaluations so far in
    the time since training began, and a line at the end.

    Where a ``WeightAveraging`` has begun an average, that is what is measured, as validation does.

    The documents come from the trainer's data module, which must offer ``vocabulary``, ``train_length`` and
    ``evaluation_documents()``; the model is the LightningModule's ``model``.

    Args:
        every_n_train_steps: Optimizer steps between evaluations.
        methods: Names of presets, and ``trained`` for the method under training. The first is the baseline.
        length_ratios: Evaluated lengths as multiples of the training length.
        max_tokens: At each length only the first so many documents that a method reads no more tokens; all if null.
        output_dir: Where to write; the log folder of the run if None.
        protocol: What is masked: ``mlm``, 15 % at once, or ``single-mask``, one position per pass; and ``copy``, beside
            one of them or alone: some of a passage that was read before, to see what the model gains from that; or
            ``recall``, likewise, for ``Synthetic`` texts of that task.
        **options: Further fields of ``gau_alpha.extrapolation.EvaluationOptions``.

    Raises:
        ValueError: If an option is out of range or no method is named.
    """

    def __init__(
        self,
        every_n_train_steps: int,
        methods: Sequence[str] = (TRAINED,),
        length_ratios: Sequence[int] = (1, 2, 4, 8, 16),
        max_tokens: int | None = 65536,
        output_dir: str | None = None,
        protocol: Sequence[str] | str = "mlm",
        **options: Any,
    ) -> None:
        require_whole("every_n_train_steps", every_n_train_steps)
        names = isinstance(methods, Sequence) and not isinstance(methods, str)
        if not names or not all(isinstance(name, str) for name in methods):
            raise ValueError(f"methods must be a list of names, got {methods!r}.")
        if not methods:
            raise ValueError(f"methods is empty: name presets, or {TRAINED!r} for the method under training.")
        if output_dir is not None:
            require_path("output_dir", output_dir)
        self.every_n_train_steps = every_n_train_steps
        self.methods = methods
        protocols = protocol_names(protocol)
        if {"mlm", "single-mask"} <= set(protocols):
            raise ValueError("protocol names mlm and single-mask, whose numbers are logged by one name: choose one.")
        self.options = [
            EvaluationOptions(length_ratios=length_ratios, max_tokens=max_tokens, protocol=name, **options)
            for name in protocols
        ]
        self.output_dir = output_dir
        self._engines: list[ExtrapolationEngine] = []  # one per protocol
        self._last_step: int | None = None  # optimizer step of the last evaluation, None before any
        self._begun = 0.0  # when training did, by time.perf_counter
        self._spent = 0.0  # seconds in evaluations since
        self._num_evaluations = 0

    def state_dict(self) -> dict[str, int | None]:
        """Remember the last evaluation: a run killed between a step and its evaluation makes up for it."""
        return {"last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, int | None]) -> None:
        """Take up what ``state_dict`` remembered.

        Raises:
            ValueError: If it is no step.
        """
        last_step = state_dict.get("last_step")
        if last_step is not None:
            require_whole("The checkpoint's last_step of ExtrapolationEvaluation", last_step, least=0)
        self._last_step = last_step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finds documents and methods, so that what is wrong with them is said before any step."""
        self._begun, self._spent, self._num_evaluations = time.perf_counter(), 0.0, 0
        model = _model(pl_module)
        with preserve_training_state(model):
            self._engines = self._build_engines(trainer)
            self._resolve(model, self._engines[0].train_length)
        if self._last_step is None:
            self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Evaluates if a multiple of ``every_n_train_steps`` was reached since the last time.

        Compared by steps, not by batches: with accumulated gradients several batches share a step.
        """
        assert self._last_step is not None, "on_train_start sets it"
        if trainer.global_step // self.every_n_train_steps > self._last_step // self.every_n_train_steps:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates the final weights, unless that was just done, and says what evaluations have cost."""
        assert self._last_step is not None, "on_train_start sets it"
        if trainer.global_step > self._last_step:
            self._evaluate(trainer, pl_module)
        if self._num_evaluations:
            seconds = time.perf_counter() - self._begun
            rank_zero_info(
                f"ExtrapolationEvaluation: {self._num_evaluations} evaluations took {self._spent:.1f} s, "
                f"{self._spent / seconds:.1%} of the {seconds:.1f} s since training began."
            )

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for the last evaluation, where a run was killed after its last step."""
        self.on_train_start(trainer, pl_module)
        self.on_train_end(trainer, pl_module)

    def summary_metrics(self) -> list[str]:
        """Name the scalars by which runs are compared: of the first method, at the least and the largest length."""
        first = self.options[0]
        ratios = sorted({min(first.ratios), max(first.ratios)})
        metric, _ = _PROBED.get(first.protocol, ("accuracy", ""))
        return [_tag(self.methods[0], ratio, metric) for ratio in ratios]

    def _build_engines(self, trainer: Trainer) -> list[ExtrapolationEngine]:
        data = trainer.datamodule  # type: ignore[attr-defined]  # set where a data module is attached
        needed = ("vocabulary", "train_length", "evaluation_documents")
        missing = [name for name in needed if not hasattr(data, name)]
        if missing:
            given = "no data module" if data is None else type(data).__name__
            raise ValueError(
                f"ExtrapolationEvaluation needs a data module with {', '.join(needed)}; the trainer was given {given}, "
                f"which lacks {', '.join(missing)}."
            )
        return [ExtrapolationEngine.for_data(data, options) for options in self.options]

    def _resolve(self, model: GAUAlphaForMaskedLM, train_length: int) -> dict[str, AttentionMethod]:
        methods = {name: resolve_method(name, model.method, train_length) for name in self.methods}
        for name, method in methods.items():
            scaling = method.scaling
            if (isinstance(scaling, CalibratedScale) and scaling.lengths is None) or (
                isinstance(scaling, RandomKeysScale) and scaling.entropy is None
            ):
                raise ValueError(
                    f"Method {name!r} needs a table that is measured on finished weights: evaluate it with `gau-alpha "
                    f"calibrate` and `gau-alpha extrapolate` after training."
                )
        return methods

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures on all processes; the first of them writes."""
        assert self._engines, "on_train_start builds them"
        self._last_step = trainer.global_step
        start = time.perf_counter()
        model = _model(pl_module)
        averaged = averaged_weights(trainer, pl_module)
        with averaged as weights, preserve_training_state(model), trainer.precision_plugin.forward_context():
            methods = self._resolve(model, self._engines[0].train_length)
            results = [result for engine in self._engines for result in engine.evaluate(model, methods)]
        tokenizer = tokenizer_label(trainer.datamodule)  # type: ignore[attr-defined]  # as in _build_engines
        results = [replace(one, tokenizer=tokenizer) for one in results]
        run = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "weights": weights,
            "evaluations": {engine.protocol.name: engine.describe() for engine in self._engines},
            "methods": {name: method.describe() for name, method in methods.items()},
            "precision": str(trainer.precision),
            "world_size": trainer.world_size,
            "torch": str(torch.__version__),
            "seconds": time.perf_counter() - start,
        }
        folder = self._folder(trainer)
        report = Report(results, run)
        if trainer.is_global_zero:
            report.write(folder)
        now = time.perf_counter()
        self._spent += now - start
        self._num_evaluations += 1
        if trainer.is_global_zero:
            cost = {"seconds": now - start, "share_of_time": self._spent / (now - self._begun)}
            self._log(trainer, report, {f"extrapolation/{name}": value for name, value in cost.items()})

    def _folder(self, trainer: Trainer) -> Path:
        """On all processes: the run's folder is agreed on between them."""
        return Path(self.output_dir or shared_run_path(trainer)) / "extrapolation" / f"step_{trainer.global_step}"

    def _log(self, trainer: Trainer, report: Report, cost: dict[str, float]) -> None:
        metrics = dict(cost)
        for result in report.rows:
            metrics |= _scalars(result)
        image = report.image()
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
            log_image(logger, "extrapolation/perplexity", image, trainer.global_step)


def _model(pl_module: LightningModule) -> GAUAlphaForMaskedLM:
    model = getattr(pl_module, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise ValueError(
            f"ExtrapolationEvaluation measures the attribute `model` of the LightningModule, a GAUAlphaForMaskedLM; "
            f"{type(pl_module).__name__} has {'none' if model is None else f'a {type(model).__name__}'}."
        )
    return model  # type: ignore[return-value]  # compiled, it is of another class


def _tag(method: str, ratio: int, name: str) -> str:
    return f"extrapolation/{method}/x{ratio:03}/{name}"  # padded: names then sort as lengths do


def _scalars(result: ExtrapolationResult) -> dict[str, float]:
    """What there is a number for: a logger would draw NaN as a gap at best."""
    values = {name: getattr(result, name) for name in _METRICS}
    if result.protocol in _PROBED:  # whose other numbers are not to be taken for those of text as it was written
        values = {_PROBED[result.protocol][0]: getattr(result, _PROBED[result.protocol][1])}
    return {
        _tag(result.method, result.length_ratio, name): value
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }
