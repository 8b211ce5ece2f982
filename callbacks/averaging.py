"""Averaged weights: validation, evaluations, checkpoints and exports speak of the same ones, by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from gau_alpha.checkpoints.chosen_weights import AVERAGED, RAW, WEIGHTS_KEY


class AverageFromTheFirstUpdate(Callback):
    """Lets Lightning's ``WeightAveraging`` speak of the weights that are trained until its average has begun.

    Until its first update its average holds the weights that training began with: it would validate these, save them,
    and leave them when a short run ends. Here it follows the trained weights until then, which changes no average: the
    first update replaces what it holds. Checkpoints say which weights they hold.
    """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the trained weights before they are swapped in."""
        self._follow(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the trained weights before they are left to whoever comes next."""
        self._follow(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Follow the trained weights before they are saved, and say which weights a checkpoint holds."""
        self._follow(trainer, pl_module)
        averaging = _averaging(trainer)
        checkpoint[WEIGHTS_KEY] = RAW if averaging is None or not _has_begun(averaging) else AVERAGED

    def _follow(self, trainer: Trainer, pl_module: LightningModule) -> None:
        averaging = _averaging(trainer)
        if averaging is None or averaging._average_model is None or _has_begun(averaging):
            return
        averaging._average_model.module.load_state_dict(pl_module.state_dict())


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[str]:
    """Give a module the averaged weights in this ``with`` block, if there is an average and it has begun.

    Args:
        trainer: Whose callbacks may average.
        pl_module: The module that it trains.

    Yields:
        ``averaged`` or ``raw``: which weights the module has.
    """
    averaging = _averaging(trainer)
    if averaging is None or not _has_begun(averaging):
        yield RAW
        return
    # As Lightning does around a validation; it has no public name for it.
    averaging._swap_models(pl_module)
    try:
        yield AVERAGED
    finally:
        averaging._swap_models(pl_module)


def _averaging(trainer: Trainer) -> WeightAveraging | None:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it
    return next((one for one in callbacks if isinstance(one, WeightAveraging)), None)


def _has_begun(averaging: WeightAveraging) -> bool:
    average = averaging._average_model
    return average is not None and int(average.n_averaged) > 0
