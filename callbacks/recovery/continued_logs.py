"""TensorBoard after a run was interrupted: one point per step and tag, and none lost."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from callbacks.recovery.preemption import Finisher

KEY = "logged_until"
"""The entry of a checkpoint that says when it was saved, by the clock that events are stamped with."""


class ContinuedLogs(Finisher):
    """Hides the points that a resumed run will log again, and keeps those that it won't.

    A checkpoint of step n is saved amid what is logged at step n. What was logged before stays; what was logged
    after, at n or beyond, is declared orphaned, as TensorBoard calls it, and logged anew by the run that goes on.
    Loggers are flushed before a checkpoint is written: it never tells of points that a SIGKILL could take away.

    It has to be the first of the trainer's callbacks: whatever the others log belongs to the resumed run.

    Args:
        resumes: Whether the run goes on from a checkpoint.
    """

    def __init__(self, resumes: bool) -> None:
        self._resumes = resumes
        self._begun = time.time()
        self._logged_until: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let a run that starts afresh in the folder of another hide all its points."""
        if stage == "fit" and not self._resumes:
            for logger in _continued(trainer):
                _go_on(logger, 0, [])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Bring what is logged to the disk, and remember when that was."""
        for logger in trainer.loggers:
            logger.save()
        checkpoint[KEY] = time.time()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember when the checkpoint was saved."""
        stored = checkpoint.get(KEY)
        self._logged_until = float(stored) if isinstance(stored, int | float) else math.inf

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hide what the interrupted run logged after the checkpoint."""
        if self._logged_until is None:
            return
        until, self._logged_until = min(self._logged_until, self._begun), None
        step = trainer.global_step
        for logger in _continued(trainer):
            _go_on(logger, step, _logged_at(Path(logger.log_dir), step, until))

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so where no step is left to train."""
        self.on_train_start(trainer, pl_module)


def _continued(trainer: Trainer) -> list[TensorBoardLogger]:
    """List the loggers whose folder holds events already; on the process that logs."""
    if not trainer.is_global_zero:
        return []
    found = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return [logger for logger in found if _event_files(Path(logger.log_dir))]


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))  # the order in which TensorBoard reads them


def _go_on(logger: TensorBoardLogger, step: int, kept: list[Event]) -> None:
    """Declare all points from a step on orphaned, but for some."""
    writer = logger.experiment._get_file_writer()  # as Lightning gets it
    writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step)
    for event in kept:
        writer.event_writer.add_event(event)


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
