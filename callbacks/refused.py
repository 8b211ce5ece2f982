"""Lightning's callbacks that would change a run behind its own back: refused by name, with what to do instead."""

from collections.abc import Iterable

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy, Strategy

REFUSED: dict[type[Callback], str] = {
    LearningRateFinder: "the rate that it finds would hold for one step, then the schedule's, and a restarted run "
    "would search again. Search in a run of its own, and set model.optimizer.init_args.learning_rate",
    BatchSizeFinder: "the size of a batch is part of the data's order, which can't change in a run. Set "
    "data.init_args.batch_size",
    StochasticWeightAveraging: "it replaces the learning rate's schedule, and a resumed run would lose its average. "
    "Use lightning.pytorch.callbacks.EMAWeightAveraging",
    BackboneFinetuning: "it thaws a module's `backbone`, which ours have not: all layers are trained. Leave it out",
    GradientAccumulationScheduler: "the schedule could not know how many steps there will be. Set "
    "trainer.accumulate_grad_batches",
}
"""Why, and what to do instead."""


def check_callbacks(callbacks: Iterable[Callback], strategy: Strategy) -> None:
    """Refuse what would make a run another one than its config and its checkpoints say.

    Args:
        callbacks: A trainer's.
        strategy: The trainer's.

    Raises:
        ValueError: If one is in ``REFUSED``, or averages weights that are sharded.
    """
    for callback in callbacks:
        if isinstance(callback, WeightAveraging) and isinstance(strategy, ModelParallelStrategy | FSDPStrategy):
            raise ValueError(
                f"trainer.callbacks has a {type(callback).__name__}, and {type(strategy).__name__} deals the weights "
                "over processes: the average would be a copy of pieces that nobody gathers. Leave one of them out."
            )
        if isinstance(callback, GradientAccumulationScheduler) and set(callback.scheduling) == {0}:
            continue  # Lightning adds such a one itself, for trainer.accumulate_grad_batches
        for kind, why in REFUSED.items():
            if isinstance(callback, kind):
                raise ValueError(f"trainer.callbacks has a {type(callback).__name__}: {why}.")
