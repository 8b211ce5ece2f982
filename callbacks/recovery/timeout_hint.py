"""What it means when a process has waited too long for the others, or one of them is gone."""

import re
import signal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

_WAITED = re.compile(r"timed out|timeout", re.IGNORECASE)
_GONE = re.compile(r"connection (closed|reset|refused)|broken pipe", re.IGNORECASE)


class CollectiveTimeoutHint(Callback):
    """Explains the end of a process that others have let down, and takes hanging ones with it.

    How long processes wait for each other is the ``timeout`` of the strategy. With the backend gloo the wait ends in an
    error, to which this adds what happened and what to do. With nccl torch itself ends the process, with a message of
    its own ("Watchdog caught collective operation timeout").
    """

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Add a note to an error of communication; end processes that hang and that nobody else would end."""
        if trainer.world_size == 1 or not isinstance(exception, RuntimeError):
            return
        place = f"Process {trainer.global_rank}, at step {trainer.global_step}"
        if _GONE.search(str(exception)):
            exception.add_note(f"{place}: another process has ended. Its own output says why.")
        elif _WAITED.search(str(exception)):
            exception.add_note(
                f"{place}, has waited for the others as long as trainer.strategy.init_args.timeout says, and gives up: "
                f"one of them hangs, or was busy alone for longer than that. If its work was right, raise the timeout; "
                f"if not, its own output, or `py-spy dump` while it hangs, says where it is. Nothing saved is lost: "
                f"the same command with --auto_resume true resumes from the latest checkpoint."
            )
            # Lightning has no public name for the launcher of its own processes.
            launcher = trainer.strategy.launcher
            if isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(signal.SIGKILL)  # those that this one started: without it they would stay for ever
