"""The two commands' work on checkpoints: Lightning sets up devices, precision and processes for both in one way."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from torch.nn import ModuleList
from torch.utils.data import DataLoader

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.extrapolation.calibration import LOSS, Calibration
from gau_alpha.extrapolation.calibration_solver import calibrate
from gau_alpha.extrapolation.candidates import Candidate, LoadedCheckpoint
from gau_alpha.extrapolation.engine import ExtrapolationEngine, Progress
from gau_alpha.extrapolation.loss_calibration import calibrate_loss
from gau_alpha.extrapolation.options import EvaluationOptions
from gau_alpha.extrapolation.result import ExtrapolationResult
from gau_alpha.extrapolation.result_cache import ResultCache
from gau_alpha.extrapolation.spans import document_fingerprint
from gau_alpha.training.fsdp import shard
from gau_alpha.untrusted.escaping import one_line
from gau_alpha.vocabulary import Vocabulary


class OneStep(LightningModule):
    """A test of one step, so that Lightning sets up devices, precision and processes for work on checkpoints.

    Args:
        checkpoints: Whose models the work needs.
        datamodule: Offers ``vocabulary``, ``train_length`` and ``evaluation_documents()``.
        work: Called once, on every process, with this module and where to tell of progress.
    """

    def __init__(
        self,
        checkpoints: Sequence[LoadedCheckpoint],
        datamodule: LightningDataModule,
        work: "Callable[[OneStep, Progress | None], Any]",
    ) -> None:
        super().__init__()
        self.checkpoints = checkpoints
        self.models = ModuleList(checkpoint.model for checkpoint in checkpoints)
        self.datamodule = datamodule
        self.work = work
        self.result: Any = None

    def prepare_data(self) -> None:
        """Let the data module tokenise, on one process per node."""
        self.datamodule.prepare_data()

    def setup(self, stage: str) -> None:
        """Open the documents and their vocabulary, and check that they and the checkpoints belong together.

        Raises:
            ValueError: If the data's train_length or vocabulary is not the checkpoints', or its documents are no
                documents.
        """
        data: Any = self.datamodule  # of which only what an evaluation needs is known
        data.setup("test")
        for checkpoint in self.checkpoints:
            if checkpoint.model.config.vocab_size != data.vocabulary.size:
                raise ValueError(
                    f"{checkpoint.path} has a vocabulary of {checkpoint.model.config.vocab_size} ids, the data one of "
                    f"{data.vocabulary.size}: give the tokenizer that the model was trained with."
                )
            if checkpoint.train_length != data.train_length:
                raise ValueError(
                    f"{checkpoint.path} was trained on rows of {checkpoint.train_length} tokens, but the data has "
                    f"train_length {data.train_length}: length ratios would be wrong. Leave the data's "
                    f"train_length as it was in training; other lengths are asked for with --length_ratios. "
                    f"Checkpoints of different lengths are evaluated one by one."
                )
        self.train_length: int = data.train_length
        self.vocabulary: Vocabulary = data.vocabulary
        self.documents: Sequence[np.ndarray] = data.evaluation_documents()
        if len(self.documents) and np.ndim(self.documents[0]) != 1:
            raise ValueError("evaluation_documents() must hold 1-D arrays of token ids, one per document.")

    def configure_model(self) -> None:
        """Shard the weights over processes, where the strategy says how."""
        for checkpoint in self.checkpoints:
            shard(checkpoint.model, self.device_mesh)

    def test_dataloader(self) -> DataLoader[int]:
        """Return the one step; the work is sharded over processes by itself, or not at all."""
        return DataLoader([0])  # type: ignore[arg-type]

    def test_step(self, batch: object, batch_idx: int) -> None:
        """Do the work."""
        with progress_bar() if self.trainer.is_global_zero else nullcontext() as progress:
            self.result = self.work(self, progress)


def evaluate_candidates(
    step: OneStep,
    progress: Progress | None,
    *,
    candidates: Sequence[Candidate],
    options: Sequence[EvaluationOptions],
    baseline: str | None,
    tokenizer: str,
    unfinished: Path,
    time_budget: float | None,
) -> tuple[list[ExtrapolationResult], dict[str, Any], ResultCache | None]:
    """Measure methods on checkpoints.

    Args:
        step: Knows the documents.
        progress: Told of every batch.
        candidates: What to measure.
        options: On which part of which documents, and more: one for every protocol, which is measured after the other.
        baseline: Name of the candidate that the others are compared with; the first if None.
        tokenizer: What the losses are per token of, for the results.
        unfinished: Folder that keeps finished measurements until all are there.
        time_budget: Seconds; measurements that would end later are not begun.

    Returns:
        The results; in plain data what was measured; and, on rank 0, the finished measurements, to be closed once all
        is in the report.

    Raises:
        ValueError: If no document is long enough, or the folder holds an unfinished evaluation of something else.
    """
    calibrated_on = {
        fingerprint
        for one in candidates
        if one.calibration is not None
        for fingerprint in one.calibration.provenance["documents"]
    }
    left_out = [
        place
        for place in range(len(step.documents) if calibrated_on else 0)
        if document_fingerprint(step.documents[place]) in calibrated_on
    ]  # nothing is evaluated on what a method was calibrated on
    engines = [
        ExtrapolationEngine(step.documents, step.vocabulary, step.train_length, one, left_out=left_out)
        for one in options
    ]
    evaluations = {engine.protocol.name: engine.describe() for engine in engines}
    checkpoints = {one.name: one.checkpoint for one in candidates if one.checkpoint is not None}
    methods = {one.name: one.method.describe() for one in candidates}
    # Measurements belong to this; those of another identity are never mixed in.
    weights = {name: checkpoint.weights for name, checkpoint in checkpoints.items()}
    identity = {
        "checkpoints": {name: checkpoint.sha256 for name, checkpoint in checkpoints.items()},
        "weights": weights,
        "methods": methods,
        "evaluations": evaluations,
        "documents": {engine.protocol.name: engine.spans.fingerprint() for engine in engines},
        "precision": str(step.trainer.precision),
    }
    cache, refusal = None, ""
    if step.trainer.is_global_zero:
        try:
            cache = ResultCache(unfinished, identity)
            if known := len(cache.known()):
                rank_zero_info(f"{known} measurements are finished already, and read from {unfinished}")
        except ValueError as error:
            refusal = str(error)
    # Rank 0 alone sees the folder, but all must stop, or the others would wait for it.
    if refusal := step.trainer.strategy.broadcast(refusal):
        raise ValueError(refusal)
    run = {
        "evaluations": evaluations,
        "documents_sha256": identity["documents"],
        "baseline": baseline or candidates[0].name,
        "methods": methods,
        "checkpoints": {name: str(checkpoint.path) for name, checkpoint in checkpoints.items()},
        "checkpoints_sha256": {name: checkpoint.sha256 for name, checkpoint in checkpoints.items()},
        "weights": weights,
    }
    end = None if time_budget is None else time.monotonic() + time_budget
    results = [
        replace(result, tokenizer=tokenizer)
        for engine in engines
        for result in engine.compare(candidates, baseline, progress, cache, seconds_until(end))
    ]
    return results, run, cache


def seconds_until(end: float | None) -> float | None:
    """How long it is until a moment: a budget, of which at least next to nothing is left.

    Args:
        end: By ``time.monotonic``; None: there is no budget.
    """
    return None if end is None else max(end - time.monotonic(), sys.float_info.min)


def calibrate_checkpoint(
    step: OneStep, progress: Progress | None, *, name: str, method: AttentionMethod, objective: str, **options: Any
) -> Calibration:
    """Calibrate a method on a checkpoint. Every process does the same work and comes to the same table.

    Args:
        step: Knows the checkpoint and the documents.
        progress: Told how far it is.
        name: Name of the method.
        method: The method.
        objective: What temperatures are measured for, ``entropy`` or ``loss``.
        **options: Further arguments of ``calibrate`` or ``calibrate_loss``.

    Raises:
        ValueError: As these.
    """
    (checkpoint,) = step.checkpoints
    measure: Callable[..., Calibration] = calibrate_loss if objective == LOSS else calibrate
    with checkpoint.model.using(method):
        found = measure(
            checkpoint.model,
            step.documents,
            step.vocabulary,
            step.train_length,
            method=name,
            progress=progress,
            **options,
        )
    origin = {"checkpoint": str(checkpoint.path), "checkpoint_sha256": checkpoint.sha256, "weights": checkpoint.weights}
    return replace(found, provenance={**origin, **found.provenance})


@contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Progress]:
    """A bar with the share done and the time left, fed by the engine's ``progress``.

    Args:
        console: Where to draw; standard output if None.

    Yields:
        What to hand to ``ExtrapolationEngine.compare`` as ``progress``.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with ProgressBars(*columns, console=console) as bars:
        bar = bars.add_task("evaluating", total=None)
        yield lambda done, total, description: bars.update(
            bar, completed=done, total=total, description=one_line(description)
        )
