"""A run that is told to end saves a checkpoint first, and one that resumes trusts no path of it."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

NAME = "interrupted.ckpt"
"""The checkpoint that an interrupted run leaves."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


@runtime_checkable
class CatchUpCallback(Protocol):
    """A callback with work at the end of training that must not stay undone where a run was killed before it."""

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do that work, in a resumed run that has no step left to train: no hook of training is called in one.

        Args:
            trainer: The trainer.
            pl_module: The module it has trained.
        """


class PreemptionCheckpoint(Callback):
    """On SIGTERM, SIGUSR1 or Ctrl-C saves ``interrupted.ckpt`` after the running step, then ends the process.

    The exit code is 128 + the signal's number, as if the signal itself had ended it. A measurement or validation that
    is running is finished first. A second signal ends the process at once. Under SLURM, SIGUSR1 also requeues the job
    where Lightning would have. Before training and after it, signals do what they always do.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}
        self._step = 0
        self._process = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals: Lightning's own handlers would end the run without saving, or amid a step."""
        self._received = None
        self._process = os.getpid()
        self._step = trainer.global_step
        for callback in trainer.checkpoint_callbacks:
            # A resumed ModelCheckpoint does not know that it saved this step. With accumulated gradients it would save
            # it again a batch later, over the good one and without the gradients that are being accumulated. It offers
            # neither its interval nor what it has saved in public.
            every = getattr(callback, "_every_n_train_steps", 0)
            if isinstance(callback, ModelCheckpoint) and self._step and every and self._step % every == 0:
                callback._last_global_step_saved = self._step
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            # what is ignored stays so: a shell starts commands in the background that Ctrl-C is not meant for
            heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._receive) for number in heeded}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end, once a step is complete and some process has received a signal.

        Raises:
            SystemExit: With 128 + the number of the signal, once the checkpoint is written.
        """
        if trainer.global_step == self._step:
            return  # gradients are being accumulated, and no checkpoint holds them
        self._step = trainer.global_step
        # Signals reach processes at different moments; all end at the same step.
        if not trainer.strategy.reduce_boolean_decision(self._received is not None, all=False):
            return
        number = self._received or signal.SIGTERM
        name = signal.Signals(number).name
        folder = _folder(trainer)
        if folder is None:
            rank_zero_info(f"{name}: ending at step {trainer.global_step}. Nothing is saved: checkpoints are off.")
        else:
            trainer.save_checkpoint(folder / NAME)
            rank_zero_info(
                f"{name}: saved {folder / NAME} at step {trainer.global_step}, ending. The same command with "
                f"--auto_resume true resumes from there."
            )
        if number == signal.SIGUSR1 and trainer.is_global_zero:
            _requeue(trainer)
        raise SystemExit(128 + number)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._release()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a checkpoint name no files but those in the folder that its run writes to.

        ModelCheckpoint deletes the paths that it remembers.
        """
        states = checkpoint.get("callbacks")
        for callback in trainer.checkpoint_callbacks:
            for key in (callback.state_key, type(callback)):  # the class itself: of checkpoints from before 1.5
                state = states.get(key) if isinstance(states, dict) else None
                if isinstance(callback, ModelCheckpoint) and isinstance(state, dict):
                    _confine(state, Path(callback.dirpath or "."), callback.mode)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a worker of a data loader, which inherits the handler: Ctrl-C reaches it, too
        if self._received is not None:
            raise SystemExit(128 + number)
        self._received = number
        text = "what is running is finished and saved first; a second signal ends at once."
        os.write(2, f"\n{signal.Signals(number).name}: {text}\n".encode())  # print is not made for signal handlers

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _folder(trainer: Trainer) -> Path | None:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
        return None
    folders = [x.dirpath for x in trainer.checkpoint_callbacks if isinstance(x, ModelCheckpoint) and x.dirpath]
    return Path(folders[0]) if folders else None


def _confine(state: dict[str, Any], folder: Path, mode: str) -> None:
    def inside(path: Any) -> str:
        there = folder / Path(str(path)).name
        return str(there) if path and there.is_file() else ""

    state["dirpath"] = str(folder)
    for name in _PATHS:
        state[name] = inside(state.get(name))
    best = state.get("best_k_models")
    kept = best.items() if isinstance(best, dict) else ()
    state["best_k_models"] = scores = {inside(path): score for path, score in kept if inside(path)}
    if scores:  # Lightning compares with the worst of them, without looking whether it is among them
        state["kth_best_model_path"] = (max if mode == "min" else min)(scores, key=lambda path: scores[path])


def _requeue(trainer: Trainer) -> None:
    # The strategy of one process has none, and Lightning has no public name for the one that it has found.
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    print(f"requeued job {job}" if done.returncode == 0 else f"requeueing job {job} failed: {done.stderr.strip()}")
