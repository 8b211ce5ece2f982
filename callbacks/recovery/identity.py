"""The run's id in its checkpoints, and the list of its files kept up to date."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.recovery.run_folder import run_id_of
from callbacks.recovery.start import Start
from callbacks.run_path import own_folder
from gau_alpha.checkpoints.atomic_write import LISTENERS
from gau_alpha.checkpoints.identity import RUN_KEY

_LOGS = ("events.out.tfevents.*", "hparams.yaml", "metrics*.csv")


class RunIdentity(Callback):
    """Gives a ``fit`` its id, and sees that it goes on from no other run's checkpoint unless that was asked for.

    Args:
        start: How the run starts.
        trainer: Built, but not started: what its loggers' folders hold by now is not the run's.
    """

    def __init__(self, start: Start, trainer: Trainer) -> None:
        self._start = start
        self._run_id: str | None = None
        self._parent: str | None = None
        self._trainer = trainer
        self._is_new = start.folder.run_id is None
        self._has_failed_early = False
        self._before = {path for path in _logs(trainer) if not start.folder.lists(path)}

    def describe(self) -> dict[str, str | None]:
        """Return ``id`` and ``parent``, the id of the run that this one was continued from, as plain data."""
        return {"id": self._run_id, "parent": self._parent}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin, or go on, and from now on list what is written."""
        if stage != "fit":
            return
        if trainer.is_global_zero:
            self._run_id = self._start.folder.begin()
            LISTENERS.append(self._start.folder.add)
        self._run_id = trainer.strategy.broadcast(self._run_id)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check whose checkpoint it is.

        Raises:
            ValueError: If it is another run's and was not named for a new run.
        """
        owner = run_id_of(checkpoint)
        if owner == self._run_id:
            parent = checkpoint[RUN_KEY].get("parent")
            self._parent = parent if isinstance(parent, str) else None
        elif self._start.adopts:
            self._parent = owner
        else:
            raise ValueError(
                f"The checkpoint that training would go on from was saved by another run (id {owner}), and the run in "
                f"{self._start.folder.path} has the id {self._run_id}. Name its file with --ckpt_path and give another "
                f"--trainer.logger.version for a new run that goes on from it."
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """List what loggers have written; whose checkpoint it is says the run's record."""
        self._list_logs(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List what loggers have written."""
        self._list_logs(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """List what loggers have written, and remember whether any batch was trained."""
        self._list_logs(trainer)
        self._has_failed_early = self._is_new and trainer.fit_loop.total_batch_idx < 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List what loggers have written."""
        self._list_logs(trainer)

    def release(self) -> None:
        """Let other processes into the folder; nothing is listed any more.

        A new run that ended before its first batch, over a mistake in its config for instance, leaves nothing: the same
        command with the mistake corrected finds the folder free.
        """
        if self._has_failed_early and self._trainer.is_global_zero:
            self._list_logs(self._trainer)
            self._start.folder.remove_run()
        if self._start.folder.add in LISTENERS:
            LISTENERS.remove(self._start.folder.add)
        self._start.folder.release()

    def _list_logs(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self._run_id is not None:
            self._start.folder.add(*sorted(_logs(trainer) - self._before))


def identity_of(trainer: Trainer) -> dict[str, str | None]:
    """Return ``id`` and ``parent`` of a trainer's run as plain data; empty if nothing gave it any.

    Args:
        trainer: The trainer.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
    return next((one.describe() for one in callbacks if isinstance(one, RunIdentity)), {})


def _logs(trainer: Trainer) -> set[Path]:
    folders = [folder for one in trainer.loggers if (folder := own_folder(one)) is not None]
    return {path for folder in folders for pattern in _LOGS for path in folder.glob(pattern)}
