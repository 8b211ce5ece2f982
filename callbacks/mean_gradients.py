"""Gradients that other callbacks may look at."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from gau_alpha.training.module import GAUAlphaModule


class MeanGradients(Callback):
    """Turns gradients of sums into those that the optimizer steps with; ``gau-alpha fit`` has one.

    A module's own ``on_before_optimizer_step`` runs after that of all callbacks, which would see sums over targets.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Average them over the targets of the step."""
        if isinstance(pl_module, GAUAlphaModule):
            pl_module.average_gradients()
