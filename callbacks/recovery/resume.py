"""``fit --auto_resume true``: a restarted command resumes from the latest valid checkpoint, and its logs go on."""

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_info
from lightning_utilities.core.imports import RequirementCache
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from callbacks.recovery.preemption import CatchUpCallback
from callbacks.recovery.run_folder import RunFolder, run_id_of
from callbacks.run_path import run_path
from gau_alpha.checkpoints import read_checkpoint

if TYPE_CHECKING:
    from jsonargparse import Namespace

AUTO_RESUME = """For fit: resume from the run's own latest valid checkpoint, skipping damaged ones and those of other
runs; start afresh if there is none. An explicit --ckpt_path wins. The run's folder must be the same at every start: a
logger without a version gets the version "auto". Other commands accept the option and do nothing with it, so that one
file serves all. If max_steps or max_epochs differ from those of the checkpoint, the learning rate follows the new
curve, but never above the rate that the checkpoint was saved at once the warm-up is over."""
"""The help of ``--auto_resume``."""

VERSION = "auto"
"""The version of a logger that was given none: a restarted command must find its folder again."""

LOGGED_UNTIL = "logged_until"
"""The entry of a checkpoint that says when it was saved, by the clock that events are stamped with."""

_TRAINING = ("optimizer_states", "lr_schedulers", "loops")


class Choice(NamedTuple):
    """The latest valid checkpoint, None if there is none, and why it was chosen, line by line."""

    path: Path | None
    reasons: list[str]


def fix_version(trainer: "Namespace") -> None:
    """Give the logger of a parsed config a version, where it would count up at every start.

    Args:
        trainer: The section ``trainer`` of the config.

    Raises:
        ValueError: If the logger is of a kind whose folder can't be foreseen.
    """
    if trainer.logger is False:
        return  # checkpoints lie in default_root_dir itself
    if trainer.logger in (None, True):
        # what Lightning would take
        from jsonargparse import Namespace  # callbacks can be had without a command line

        kind = TensorBoardLogger if RequirementCache("tensorboard") else CSVLogger
        init_args = {"save_dir": trainer.default_root_dir or str(Path.cwd()), "version": VERSION}
        trainer.logger = Namespace(class_path=f"{kind.__module__}.{kind.__qualname__}", init_args=Namespace(init_args))
        return
    first = trainer.logger[0] if isinstance(trainer.logger, list) else trainer.logger
    if first.init_args.get("version") is not None or first.init_args.get("run_id") is not None:
        return
    if first.class_path.rpartition(".")[2] not in ("TensorBoardLogger", "CSVLogger"):
        raise ValueError(
            f"auto_resume needs a folder that is the same at every start, and {first.class_path} has no version: give "
            f"one with --trainer.logger.init_args.version NAME (MLFlowLogger: run_id, of a run that there is)."
        )
    first.init_args.version = VERSION
    rank_zero_info(
        f"auto_resume: the logger has no version, and gets {VERSION!r}. For another run of the same name give "
        f"--trainer.logger.init_args.version NAME."
    )


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """List where a trainer's ModelCheckpoints write.

    Args:
        trainer: Built.
    """
    default = run_path(trainer) / "checkpoints"
    savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    written = [Path(saver.dirpath) if saver.dirpath else default for saver in savers] or [default]
    return list(dict.fromkeys(written))


def saved_checkpoints(trainer: Trainer) -> list[Path]:
    """List the checkpoints where a trainer's ModelCheckpoints write, and those that Lightning saves under SLURM.

    Args:
        trainer: Built.
    """
    found = {path for folder in checkpoint_folders(trainer) for path in folder.glob("*.ckpt")}
    return sorted(
        path for path in found.union(Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt")) if path.is_file()
    )


def latest_valid_checkpoint(found: Iterable[Path], run_id: str | None) -> Choice:
    """Choose the checkpoint of a run written last, skipping those that are damaged or can't be trained on.

    A pure function of the files: every process that sees the same ones chooses the same.

    Args:
        found: Checkpoints, of whatever run.
        run_id: Whose checkpoints count; None if there is no run yet.
    """
    reasons: list[str] = []
    for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            reasons.append(f"skipped: {error}")
            continue
        if lacking := [name for name in _TRAINING if name not in checkpoint]:
            reasons.append(f"skipped: {path} holds weights only ({', '.join(lacking)} missing).")
            continue
        if run_id is None or run_id_of(checkpoint) != run_id:
            reasons.append(f"skipped: {path} was saved by another run ({run_id_of(checkpoint) or 'without an id'}).")
            continue
        why = "the latest valid checkpoint" if reasons else "the latest checkpoint"
        reasons.append(f"resuming from {path}, {why}, saved at step {checkpoint.get('global_step')}")
        return Choice(path, reasons)
    reasons.append(f"no {'valid ' if reasons else ''}checkpoint of this run: starting afresh")
    return Choice(None, reasons)


def keep_tables(trainer: Trainer, folder: RunFolder) -> None:
    """Rename the tables that CSVLogger would delete as soon as it starts, since it never continues one.

    Args:
        trainer: Built, but not started.
        folder: The run's, which goes on listing its tables.
    """
    # there is nothing left that it would delete
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        if path.is_file():
            numbers = (path.with_stem(f"{path.stem}_{number}") for number in count(1))
            listed = folder.lists(path)
            kept = path.rename(next(one for one in numbers if not one.exists()))
            if listed:
                folder.add(kept)
            rank_zero_info(f"CSVLogger begins a new {path.name}; what was logged before lies in {kept}")


class AgreeOnResumePath(Callback):
    """Makes sure that all processes resume from the same checkpoint.

    Args:
        path: What this process resumes from, None if it starts afresh.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with the first process.

        Raises:
            ValueError: On every process, if one found something else.
        """
        if stage != "fit":
            return
        first = trainer.strategy.broadcast(self.path)
        if not trainer.strategy.reduce_boolean_decision(first == self.path, all=True):
            raise ValueError(
                f"Processes would resume from different checkpoints: rank 0 from {first}, rank {trainer.global_rank} "
                f"from {self.path}. The run's folder must be shared between the machines."
            )


class PurgeOrphanedEvents(Callback, CatchUpCallback):
    """Hides from TensorBoard the points that a resumed run will log again, and keeps those that it won't.

    A checkpoint of step n is saved amid what is logged at step n. What was logged before stays; what was logged
    after, at n or beyond, is declared orphaned, as TensorBoard calls it, and logged anew by the resumed run.
    Loggers are flushed before a checkpoint is written: it never tells of points that a SIGKILL could take away.

    Args:
        resumes: Whether the run resumes from a checkpoint.
    """

    def __init__(self, resumes: bool) -> None:
        self._resumes = resumes
        self._begun = time.time()
        self._logged_until: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let a run that starts afresh in the folder of another hide all its points."""
        if stage == "fit" and not self._resumes:
            for logger in _continued(trainer):
                _purge(logger, 0, [])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Bring what is logged to the disk, and remember when that was."""
        for logger in trainer.loggers:
            logger.save()
        checkpoint[LOGGED_UNTIL] = time.time()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember when the checkpoint was saved."""
        stored = checkpoint.get(LOGGED_UNTIL)
        self._logged_until = float(stored) if isinstance(stored, int | float) else math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hide what the interrupted run logged after the checkpoint."""
        if self._logged_until is None:
            return
        until, self._logged_until = min(self._logged_until, self._begun), None
        step = trainer.global_step
        for logger in _continued(trainer):
            _purge(logger, step, _logged_at(Path(logger.log_dir), step, until))

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so where no step is left to train."""
        self.on_train_start(trainer, pl_module)


class ResumePendingValidation(Callback, CatchUpCallback):
    """Validates before a resumed run goes on, if its checkpoint was saved between a step and the validation after it.

    Lightning takes that validation for done. It is not: what it would have logged, and the checkpoints that are chosen
    by it, would be missing.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate if it is due."""
        epoch_loop = trainer.fit_loop.epoch_loop
        # Lightning says in public neither whether a validation is due nor what its answer depends on, the fetcher.
        fetcher = trainer.fit_loop._data_fetcher
        if not epoch_loop.restarted_on_train_batch_end or fetcher is None:
            return
        if not epoch_loop._should_check_val_fx(fetcher):
            return
        # As in on_advance_end of the loop. Meanwhile the batch counts as completed, as it would have: a checkpoint that
        # is saved by this validation is one from after it.
        progress = epoch_loop.batch_progress
        progress.increment_completed()
        trainer.validating = True
        epoch_loop.val_loop.restarting = False
        epoch_loop.val_loop.run()
        trainer.training = True
        for counts in (progress.total, progress.current):
            counts.completed -= 1  # the loop's own start counts it

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate after the last step."""
        trainer.fit_loop.epoch_loop.update_restart_stage()
        self.on_train_start(trainer, pl_module)


def _continued(trainer: Trainer) -> list[TensorBoardLogger]:
    """List the loggers whose folder holds events of another run; on the process that logs."""
    if not trainer.is_global_zero:
        return []
    found = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger for logger in found if len(_event_files(Path(logger.log_dir))) > 1]  # one is its own


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))  # the order in which TensorBoard reads them


def _purge(logger: TensorBoardLogger, step: int, kept: list[Event]) -> None:
    """Declare all points from a step on orphaned, but for some."""
    writer = logger.experiment
    # TensorBoardLogger(purge_step=…) would have to know the step before it opens its writer, which is before the
    # checkpoint is read. A writer that was closed opens another file, and begins it with the purge.
    writer.close()
    writer.purge_step = step
    events = writer._get_file_writer()  # as TensorBoardLogger gets it; no public method writes an event as it was
    for event in kept:
        events.event_writer.add_event(event)


def _logged_at(folder: Path, step: int, until: float) -> list[Event]:
    """Read the points that TensorBoard shows at a step and that were logged up to a time."""
    kept: list[Event] = []
    for event in _events(folder):
        if event.HasField("session_log") and event.session_log.status == SessionLog.START and event.step <= step:
            kept.clear()
        elif event.HasField("summary") and event.step == step and event.wall_time <= until:
            kept.append(event)
    return kept


def _events(folder: Path) -> Iterator[Event]:
    for path in _event_files(folder):
        # The end of a file whose writer was killed may be missing; the loader stops there.
        for content in RawEventFileLoader(str(path)).Load():
            yield Event.FromString(content)
