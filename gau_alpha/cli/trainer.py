"""Lightning's Trainer with two more verbs: ``extrapolate`` and ``calibrate``."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.recovery import CatchUpCallback, in_order
from gau_alpha.attention.presets import TRAINED, resolve_method
from gau_alpha.cli.provenance import environment_info
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationResult, Status
from gau_alpha.extrapolation.calibration import ENTROPY, OBJECTIVES, Calibration, calibration_path
from gau_alpha.extrapolation.candidates import (
    Candidate,
    LoadedCheckpoint,
    expand_methods,
    open_checkpoints,
    pair_up,
    run_folder,
)
from gau_alpha.extrapolation.options import DEFAULT_RATIOS, protocol_names
from gau_alpha.extrapolation.report import NAME, Report
from gau_alpha.extrapolation.result_cache import claimed
from gau_alpha.extrapolation.run import OneStep, calibrate_checkpoint, evaluate_candidates, seconds_until
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.limits import require_number, require_path

DEFAULT_METHODS = [TRAINED, "infoscale", "windowed"]
"""Methods that are evaluated unless others are named."""


class CheckpointData(NamedTuple):
    """What a checkpoint is evaluated on.

    Attributes:
        data: The data module, which checkpoints of one tokenizer share.
        tokenizer: What tells it from data that is read with another tokenizer.
        note: What a reader should know of the results.
    """

    data: LightningDataModule
    tokenizer: str = ""
    note: str = ""


class GAUAlphaTrainer(Trainer):
    """Lightning's Trainer that can also evaluate and calibrate finished checkpoints past their training length."""

    evaluations: Mapping[str, CheckpointData] = MappingProxyType({})
    """What each checkpoint is evaluated on, by its path; the command line sets it."""

    def _run_stage(self) -> Any:
        """Run the loop; where a resumed run has no step left to train, let callbacks catch up.

        Lightning calls no hook of training then, and what was killed after the last step would stay undone. Public
        hooks come too early or too late for it: on_fit_start before steps and batches are restored, on_fit_end after
        the strategy was torn down. (Lightning's pull request 12932 has the order of hooks for such a run; no issue asks
        for one that is called in it.)
        """
        callbacks: list[Callback] = self.callbacks  # type: ignore[attr-defined]  # Lightning sets it
        callbacks[:] = in_order(callbacks)  # a module's configure_callbacks makes Lightning sort them its own way
        no_step_left = self.state.fn is TrainerFn.FITTING and self.global_step > 0 and self.fit_loop.done
        results = super()._run_stage()
        if no_step_left:
            for callback in callbacks:
                if isinstance(callback, CatchUpCallback):
                    callback.run_if_already_trained(self, self.lightning_module)
            if isinstance(self.lightning_module, GAUAlphaModule):
                self.lightning_module.restore_metric_state()
        return results

    def extrapolate(
        self,
        model: GAUAlphaModule,
        datamodule: LightningDataModule,
        ckpt_path: list[str],
        methods: list[str] = DEFAULT_METHODS,
        protocol: list[str] | str = "mlm",
        baseline: str | None = None,
        calibrations: list[str] | None = None,
        time_budget: float | None = None,
        output_dir: str | None = None,
        latex: bool = False,
        **options: Any,
    ) -> list[ExtrapolationResult]:
        """Evaluate checkpoints at multiples of their training length under many methods.

        With several checkpoints, a method that fixes the similarity is evaluated on those trained with it, other
        methods on each; where a method is evaluated on more than one, it is named ``method (checkpoint's run)``, and
        checkpoints that differ only in their seed are summed up as mean and spread. Losses of different tokenizers are
        not comparable: each tokenizer's checkpoints then have a report of their own, in a folder of its name, and their
        own baseline. Finished measurements are kept in the output folder: the same command, given again after an
        interruption, goes on where it stopped.

        Args:
            model: Built for the first checkpoint, whose weights it gets. Its method differs from the checkpoint's where
                another was asked for; it then differs in the same way for every checkpoint.
            datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
            ckpt_path: Lightning checkpoints of GAUAlphaModule, or Hugging Face folders, one or more.
            methods: Presets (see ``gau-alpha methods``), ``trained`` for a checkpoint's own method, or
                ``NAME_calibrated`` for a preset that ``gau-alpha calibrate --method NAME`` was run for. ``calibrated``
                and ``random_keys`` need its table for ``trained``. ``training-free`` stands for ``trained`` and all
                presets that no weights have to be trained for, ``all`` for all; what can't be evaluated is left out.
            protocol: What is masked, one or more of ``mlm``, 15 % at once; ``single-mask``, one position per pass;
                ``copy``, some of a passage that was read before, to see what a model gains from that; ``recall``,
                values whose keys were read before, for models trained on ``Synthetic`` texts of that task. Each has
                tables of its own, on one page.
            baseline: The line of the table that all others are compared with. Default, and for tokenizers that have no
                such line: the first.
            calibrations: Tables of calibrated methods; default: those that lie next to the checkpoints.
            time_budget: Seconds; what would take longer is reported as "out of time", and can be gone on with.
            output_dir: Where extrapolation.html, .json, .csv, .md, .png and .documents.parquet go. Default: the first
                checkpoint's run folder.
            latex: Whether to write a LaTeX table for the package booktabs, extrapolation.tex, too.
            **options: Fields of ``EvaluationOptions``.

        Returns:
            The results; the table is printed and the files are written.

        Raises:
            ValueError: If an option is out of range, a method is unknown, a checkpoint can't be read or does not fit
                the data, no document is long enough, or the output folder holds an unfinished evaluation of something
                else or is in use.
        """
        chosen = [EvaluationOptions(protocol=one, **options) for one in protocol_names(protocol)]
        if time_budget is not None:
            require_number("time_budget", time_budget, above=0, most=math.inf)
        if output_dir is not None:
            require_path("output_dir", output_dir)
        checkpoints = open_checkpoints(ckpt_path, model)
        folder = Path(output_dir) if output_dir else run_folder(checkpoints[0].path)
        notes = {path: one.note for path, one in self.evaluations.items()}
        methods, left_out = expand_methods(checkpoints, methods, calibrations)
        for said in left_out if self.is_global_zero else ():
            print(printable(f"note: {said}"))
        candidates = pair_up(checkpoints, methods, calibrations, notes)
        if baseline is not None and baseline not in (names := [one.name for one in candidates]):
            raise ValueError(f"baseline={baseline!r} is not evaluated; choose one of: {', '.join(names)}.")
        of_tokenizer: dict[str, list[Candidate]] = {}
        for one in candidates:
            assert one.checkpoint is not None
            of_tokenizer.setdefault(self._data_of(one.checkpoint, datamodule).tokenizer, []).append(one)
        if len(of_tokenizer) > 1 and (folder / f"{NAME}.json").exists() and self.is_global_zero:
            print(printable(f"note: {folder / NAME}.* is the report of an earlier evaluation, not of this one"))
        end = None if time_budget is None else time.monotonic() + time_budget
        results: list[ExtrapolationResult] = []
        for tokenizer, some in of_tokenizer.items():
            place = folder if len(of_tokenizer) == 1 else folder / re.sub(r"[^A-Za-z0-9]+", "_", tokenizer)
            if len(of_tokenizer) > 1 and self.is_global_zero:
                print(printable(f"tokenizer: {tokenizer} (losses of different tokenizers are not comparable)"))
            work = partial(
                evaluate_candidates,
                candidates=some,
                options=chosen,
                baseline=baseline if baseline in [one.name for one in some] else None,
                tokenizer=tokenizer,
                unfinished=place / f"{NAME}.unfinished",
                time_budget=seconds_until(end),
            )
            results += self._evaluate(some, datamodule, work, place, latex)
        return results

    def _data_of(self, checkpoint: LoadedCheckpoint, datamodule: LightningDataModule) -> CheckpointData:
        return self.evaluations.get(str(checkpoint.path), CheckpointData(datamodule))

    def _evaluate(
        self,
        candidates: list[Candidate],
        datamodule: LightningDataModule,
        work: partial[Any],
        folder: Path,
        latex: bool,
    ) -> list[ExtrapolationResult]:
        """Measure candidates that share a tokenizer, and write their report."""
        checkpoints = list({id(one.checkpoint): one.checkpoint for one in candidates if one.checkpoint}.values())
        step = OneStep(checkpoints, self._data_of(checkpoints[0], datamodule).data, work)
        unfinished = work.keywords["unfinished"]
        with claimed(unfinished, self.is_global_zero):
            self.test(step, verbose=False)
            assert step.result is not None, "the test has run"
            results, run, cache = step.result
            if cache is not None:  # on the first process
                report = Report(results, {**run, "precision": str(self.precision), **environment_info()})
                report.write(folder, latex=latex)
                report.print()
                print(f"report: {folder / NAME}.html\nall rows: {folder / NAME}.json")
                if any(result.status is Status.OUT_OF_TIME for result in results):
                    print(f"out of time: the same command goes on from {unfinished}")
                else:
                    cache.close()
        return results

    def calibrate(
        self,
        model: GAUAlphaModule,
        datamodule: LightningDataModule,
        ckpt_path: list[str],
        method: str = TRAINED,
        objective: str = ENTROPY,
        length_ratios: Sequence[int] = DEFAULT_RATIOS,
        num_documents: int = 16,
        queries_per_document: int = 512,
        seed: int = 0,
        output: str | None = None,
    ) -> Calibration:
        """Measure the temperatures at which attention entropy is what it was in training, or the loss is least.

        ``gau-alpha extrapolate --methods calibrated`` (or ``fitted``, for the loss) then uses the table, and leaves out
        the documents it was made of.
        The work is not shared: several processes would each do all of it.

        Args:
            model: Built for the checkpoint, whose weights it gets.
            datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
            ckpt_path: One Lightning checkpoint of GAUAlphaModule, or Hugging Face folder.
            method: The method to calibrate: a preset, or ``trained`` for the checkpoint's own.
            objective: ``entropy``: what it was in training, a temperature per layer and length. ``loss``: the least at
                hidden tokens, one temperature per length for all layers.
            length_ratios: Lengths of the table as multiples of train_length; others are interpolated.
            num_documents: Documents to read, the last that are long enough.
            queries_per_document: Queries whose entropy is looked at; the more the more precise.
            seed: Of the masked positions.
            output: The file. Default: next to the checkpoint, where extrapolate finds it.

        Returns:
            The table, which is written to the file.

        Raises:
            ValueError: If the method is unknown or lets no query see all keys, the checkpoint can't be read or does not
                fit the data, or no document is long enough.
        """
        if len(ckpt_path) != 1:
            raise ValueError(f"A calibration is of one checkpoint, got {len(ckpt_path)}: give --ckpt_path one file.")
        if objective not in OBJECTIVES:
            raise ValueError(f"objective={objective!r} is unknown; choose one of: {', '.join(OBJECTIVES)}.")
        if output is not None:
            require_path("output", output)
        (checkpoint,) = open_checkpoints(ckpt_path, model)
        queries: dict[str, Any] = {"queries_per_document": queries_per_document} if objective == ENTROPY else {}
        work: partial[Calibration] = partial(
            calibrate_checkpoint,
            name=method,
            objective=objective,
            method=resolve_method(method, checkpoint.model.method, checkpoint.train_length),
            length_ratios=length_ratios,
            num_documents=num_documents,
            **queries,
            seed=seed,
        )
        step = OneStep([checkpoint], datamodule, work)
        self.test(step, verbose=False)
        assert step.result is not None, "the test has run"
        if self.is_global_zero:
            path = step.result.write(output or calibration_path(checkpoint.path, method, objective))
            print(f"temperatures: {path}")
        return step.result
