"""The arguments of a module, from the plain data that its checkpoints keep of them."""

from typing import Any

from gau_alpha.checkpoints import MODELS
from gau_alpha.training import optimization
from gau_alpha.training.optimization import Schedule
from gau_alpha.untrusted.registry import Registry, exported

MODULES = MODELS | Registry({Schedule: exported(optimization, Schedule)})
"""What a checkpoint may name of a module."""

NOT_KEPT = ("init_from", "recompute")
"""Arguments that are the run's and no part of what a checkpoint is."""


def stored_arguments(cls: type, stored: object, where: str, registry: Registry = MODULES) -> dict[str, Any]:
    """Hold the hyperparameters of a checkpoint against the constructor of a module.

    Args:
        cls: The module's class.
        stored: As it saves them.
        where: The file, for messages.
        registry: What they may name.

    Returns:
        The constructor's arguments: plain data, or descriptions, of which ``gau_alpha.untrusted.registry.built`` makes
        objects.

    Raises:
        ValueError: If an argument is unknown or of the wrong type, or names a class that is not ours and not trusted.
    """
    return registry.arguments(cls, stored, f"{where}: hyper_parameters", NOT_KEPT)
