"""The validation that was due when a run was interrupted."""

from lightning.pytorch import LightningModule, Trainer

from callbacks.recovery.preemption import Finisher


class DueValidation(Finisher):
    """Validates before a resumed run goes on, if its checkpoint was saved between a step and the validation after it.

    Lightning takes that validation for done. It is not: what it would have logged, and the checkpoints that are chosen
    by it, would be missing.

    It has to come behind the trainer's other callbacks, which must have started before anything is validated.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate if it is due."""
        epoch_loop = trainer.fit_loop.epoch_loop
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

    def finish(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate after the last step."""
        trainer.fit_loop.epoch_loop.update_restart_stage()
        self.on_train_start(trainer, pl_module)
