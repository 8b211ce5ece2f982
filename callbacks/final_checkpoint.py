"""The checkpoint that a run ends with, whatever intervals its ModelCheckpoints have."""

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.recovery.preemption import CatchUpCallback
from callbacks.run_path import shared_run_path


class FinalCheckpoint(Callback, CatchUpCallback):
    """Saves ``checkpoints/final.ckpt`` in the run's folder when training ends.

    ``ModelCheckpoint`` saves at its intervals, and the last step need not be one of them.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save it."""
        trainer.save_checkpoint(shared_run_path(trainer) / "checkpoints" / "final.ckpt")

    def run_if_already_trained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for it, where a run was killed after its last step."""
        self.on_train_end(trainer, pl_module)
