"""The arguments of a module, from the plain data that its checkpoints keep of them."""

from typing import Any

from gau_alpha.config import GAUAlphaConfig
from gau_alpha.optimization import build_schedule
from gau_alpha.presets import method_from


def constructor_arguments(stored: dict[str, Any]) -> dict[str, Any]:
    """Turn the hyperparameters of a checkpoint into the constructor's arguments that every task has.

    Args:
        stored: As ``GAUAlphaModule`` saves them.

    Raises:
        ValueError: If a class of the method or the schedule is unknown, or an argument does not fit.
    """
    return {
        **{name: stored[name] for name in ("train_length", "learning_rate", "weight_decay", "betas", "kernel")},
        "config": GAUAlphaConfig(**stored["config"]),
        "method": method_from(stored["method"]),
        "schedule": build_schedule(stored["schedule"]),
    }
