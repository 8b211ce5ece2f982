"""Lightning's Trainer with two more verbs: ``extrapolate`` and ``calibrate``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.recovery import CatchUpCallback, in_order
from gau_alpha.attention.presets import TRAINED, resolve_method
from gau_alpha.cli.provenance import surroundings
from gau_alpha.extrapolation import MaskedTokens, Protocol, SingleMask, Status
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.extrapolation.calibration_run import CalibrationRun
from gau_alpha.extrapolation.entrants import calibration_path, open_checkpoints, pair_up
from gau_alpha.extrapolation.report import NAME, Report
from gau_alpha.extrapolation.study import ExtrapolationStudy
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.limits import require_number, require_path, require_whole

DEFAULT_METHODS = [TRAINED, "infoscale", "windowed"]
"""Methods that are evaluated unless others are named."""

DEFAULT_RATIOS = [1, 2, 4, 8, 16, 32, 64]
"""Lengths that are evaluated unless others are named, as multiples of the training length."""

PROTOCOLS = ("mlm", "single-mask")
"""Names of the masking protocols; see ``gau_alpha.extrapolation``."""


class GAUAlphaTrainer(Trainer):
    """Lightning's Trainer that can also evaluate and calibrate finished checkpoints past their training length."""

    def _run_stage(self) -> Any:
        """Run the loop; where a resumed run has no step left to train, let callbacks catch up.

        Lightning calls no hook of training then, and what was killed after the last step would stay undone. Public
        hooks come too early or too late for it: on_fit_start before steps and batches are restored, on_fit_end after
        the strategy was torn down.
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
        length_ratios: list[int] = DEFAULT_RATIOS,
        baseline: str | None = None,
        protocol: str = "mlm",
        positions_per_document: int | Literal["all"] | None = None,
        windows: str = "first",
        short_documents: str = "skip",
        max_documents: int | None = None,
        max_tokens: int | None = None,
        tokens_per_batch: int = 16384,
        entropy: bool = True,
        distances: bool = True,
        seed: int = 0,
        calibrations: list[str] | None = None,
        time_budget: float | None = None,
        output_dir: str | None = None,
        latex: bool = False,
    ) -> ExtrapolationStudy:
        """Evaluate checkpoints at multiples of their training length under many methods.

        With several checkpoints, a method that fixes the similarity is evaluated on those trained with it, other
        methods on each; where a method is evaluated on more than one, it is named ``method (checkpoint's run)``, and
        checkpoints that differ only in their seed are summed up as mean and spread. Finished measurements are kept in
        the output folder: the same command, given again after an interruption, goes on where it stopped.

        Args:
            model: Built for the first checkpoint. Its method differs from the checkpoint's where another was asked for;
                it then differs in the same way for every checkpoint.
            datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
            ckpt_path: Lightning checkpoints of GAUAlphaModule, one or more.
            methods: Presets (see ``gau-alpha methods``), ``trained`` for a checkpoint's own method, or
                ``NAME_calibrated`` for a preset that ``gau-alpha calibrate --method NAME`` was run for.
            length_ratios: Evaluated lengths as multiples of train_length.
            baseline: The line of the table that all others are compared with. Default: the first.
            protocol: Which positions are hidden: ``mlm``, 15 % at once, or ``single-mask``, one per pass.
            positions_per_document: For single-mask: how many positions to draw from each document, or ``all``
                (the default), which is exact.
            windows: Where in a document the evaluated stretch lies: ``first``, ``spread``, or ``aligned``, which keeps
                the targets and lets only their context grow.
            short_documents: ``skip`` documents shorter than a length, or ``repeat`` their text, which can be copied.
            max_documents: At each length only the first so many documents that are long enough; all if null.
            max_tokens: At each length only so many documents that a method reads no more tokens; all if null.
            tokens_per_batch: Documents are batched up to this many tokens; a longer one is a batch of its own.
            entropy: Whether to measure attention entropy.
            distances: Whether to measure how far attention reaches.
            seed: Of hidden positions, stretches and resamples.
            calibrations: Tables of calibrated methods; default: those that lie next to the checkpoints.
            time_budget: Seconds; what would take longer is reported as "out of time", and can be gone on with.
            output_dir: Where extrapolation.html, .json, .csv, .md and .png go. Default: the first checkpoint's run
                folder.
            latex: Whether to write the rows of a LaTeX table, extrapolation.tex, too.

        Returns:
            The study, with its rows; the table is printed and the files are written.

        Raises:
            ValueError: If a method is unknown, a checkpoint can't be read or does not fit the data, no document is
                long enough, or the output folder holds an unfinished evaluation of something else.
        """
        _check_numbers(length_ratios, seed, tokens_per_batch=tokens_per_batch)
        for name, value in (("max_documents", max_documents), ("max_tokens", max_tokens)):
            if value is not None:
                require_whole(name, value)
        if time_budget is not None:
            require_number("time_budget", time_budget, above=0, most=math.inf)
        if output_dir is not None:
            require_path("output_dir", output_dir)
        entrants = open_checkpoints(ckpt_path, model)
        options = {
            "length_ratios": length_ratios,
            "protocol": _protocol(protocol, positions_per_document),
            "windows": windows,
            "short_documents": short_documents,
            "max_documents": max_documents,
            "max_tokens": max_tokens,
            "tokens_per_batch": tokens_per_batch,
            "entropy": entropy,
            "distances": distances,
            "seed": seed,
        }
        folder = Path(output_dir) if output_dir else entrants[0].path.resolve().parent.parent
        evaluations = pair_up(entrants, methods, calibrations)
        unfinished = folder / f"{NAME}.unfinished"
        study = ExtrapolationStudy(evaluations, datamodule, options, baseline, unfinished, time_budget)
        self.test(study, verbose=False)
        if self.is_global_zero:
            run = {**study.describe(), "precision": str(self.precision), **surroundings()}
            report = Report(study.rows, run)
            report.write(folder, latex=latex)
            report.print()
            print(f"report: {folder / NAME}.html\nall rows: {folder / NAME}.json")
            if any(row.status is Status.OUT_OF_TIME for row in study.rows):
                print(f"out of time: the same command goes on from {unfinished}")
            elif study.ledger is not None:
                study.ledger.close()
        return study

    def calibrate(
        self,
        model: GAUAlphaModule,
        datamodule: LightningDataModule,
        ckpt_path: list[str],
        method: str = TRAINED,
        length_ratios: list[int] = DEFAULT_RATIOS,
        num_documents: int = 16,
        queries_per_document: int = 512,
        seed: int = 0,
        output: str | None = None,
    ) -> Calibration:
        """Measure, per layer and length, the temperature at which attention entropy is what it was in training.

        ``gau-alpha extrapolate --methods calibrated`` then uses the table, and leaves out the documents it was made of.
        The work is not dealt out: several processes would each do all of it.

        Args:
            model: Built for the checkpoint.
            datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
            ckpt_path: One Lightning checkpoint of GAUAlphaModule.
            method: The method to calibrate: a preset, or ``trained`` for the checkpoint's own.
            length_ratios: Lengths of the table as multiples of train_length; others are interpolated.
            num_documents: Documents to read, the last that are long enough.
            queries_per_document: Queries that are looked at; the more the more precise.
            seed: Of the hidden positions.
            output: The file. Default: next to the checkpoint, where extrapolate finds it.

        Returns:
            The table, which is written to the file.

        Raises:
            ValueError: If the method is unknown or lets no query see all keys, the checkpoint can't be read or does not
                fit the data, or no document is long enough.
        """
        if len(ckpt_path) != 1:
            raise ValueError(f"A calibration is of one checkpoint, got {len(ckpt_path)}: give --ckpt_path one file.")
        counts = {"num_documents": num_documents, "queries_per_document": queries_per_document}
        _check_numbers(length_ratios, seed, **counts)
        if output is not None:
            require_path("output", output)
        (entrant,) = open_checkpoints(ckpt_path, model)
        options = {
            "length_ratios": length_ratios,
            **counts,
            "seed": seed,
        }
        resolved = resolve_method(method, entrant.model.method, entrant.train_length)
        run = CalibrationRun(entrant, method, resolved, datamodule, options)
        self.test(run, verbose=False)
        assert run.calibration is not None, "the test has run"
        if self.is_global_zero:
            path = run.calibration.write(output or calibration_path(entrant.path, method))
            print(f"temperatures: {path}")
        return run.calibration


def _check_numbers(length_ratios: list[int], seed: int, **counts: int) -> None:
    if not isinstance(length_ratios, Sequence) or not length_ratios:
        raise ValueError(f"length_ratios must be one or more whole numbers of at least 1, got {length_ratios!r}.")
    for ratio in length_ratios:
        require_whole("Each of length_ratios", ratio)
    require_whole("seed", seed, least=0, most=2**64 - 1)
    for name, count in counts.items():
        require_whole(name, count)


def _protocol(name: str, positions_per_document: int | Literal["all"] | None) -> Protocol:
    if name not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {name!r}; choose one of: {', '.join(PROTOCOLS)}.")
    if name == "mlm":
        if positions_per_document is not None:
            raise ValueError("positions_per_document belongs to the protocol single-mask; mlm hides 15 % at once.")
        return MaskedTokens()
    return SingleMask(None if positions_per_document in (None, "all") else positions_per_document)  # type: ignore[arg-type]
