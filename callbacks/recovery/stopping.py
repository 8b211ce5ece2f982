"""Commands that train nothing end as soon as they are told to."""

import os
import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class EndOnSignal(Callback):
    """Ends ``validate``, ``test``, ``predict``, ``extrapolate`` and ``calibrate`` on SIGTERM or Ctrl-C.

    Lightning only remembers a SIGTERM, for a training loop. The exit code is 128 + the signal's number; callbacks get
    to keep what is finished. Training is the affair of ``PreemptionCheckpoint``.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals."""
        self._take_over(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals."""
        self._take_over(trainer)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals."""
        self._take_over(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._release()

    def _take_over(self, trainer: Trainer) -> None:
        # no other thread may set handlers; a validation of fit is part of training
        if trainer.state.fn is TrainerFn.FITTING or threading.current_thread() is not threading.main_thread():
            return
        process = os.getpid()

        def end(number: int, frame: FrameType | None) -> None:
            if os.getpid() != process:
                return  # a worker of a data loader, which inherits the handler: Ctrl-C reaches it, too
            os.write(2, f"\n{signal.Signals(number).name}: ending; what is finished is kept.\n".encode())
            launcher = trainer.strategy.launcher
            if isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(number)
            raise SystemExit(128 + number)

        # what is ignored stays so: a shell starts commands in the background that Ctrl-C is not meant for
        heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, end) for number in heeded}

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
