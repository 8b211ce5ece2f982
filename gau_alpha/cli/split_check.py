"""Whether what is held out now was held out when a checkpoint was trained."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gau_alpha.cli.checkpoint_defaults import checkpoint_defaults
from gau_alpha.untrusted.registry import shown

OPTION = "allow_other_split"
"""The option that lets documents be evaluated that a checkpoint may have been trained on."""

HELP = (
    "Whether to go on where data.split_seed or data.validation_fraction would evaluate documents that the checkpoint "
    "was trained on."
)
"""What the option does."""


def check_split(datamodule: Any, paths: Iterable[str]) -> None:
    """Refuse a split that holds out what a checkpoint was trained on.

    What a smaller fraction holds out is part of what a larger one does, so a smaller one than in training will do.

    Args:
        datamodule: The data in use; without ``split_rule``, it holds out in a way of its own, and nothing is checked.
        paths: The checkpoints.

    Raises:
        ValueError: If one was trained with another rule, or says none.
    """
    if not hasattr(datamodule, "split_rule"):
        return
    now = datamodule.split_rule()
    for path in filter(lambda path: Path(path).is_file(), paths):
        stored = checkpoint_defaults(Path(path)).data
        if stored is None:  # saved by other means than the command line: there is no record of its data
            continue
        advice = f"or say --{OPTION} true to evaluate it all the same."
        seed, fraction = (stored.arguments.get(name) for name in ("split_seed", "validation_fraction"))
        if seed is None or fraction is None:
            raise ValueError(
                f"{path} does not say which documents it held out by their text, so documents that it was trained on "
                f"may be evaluated. Train it again, {advice}"
            )
        if seed != now["split_seed"]:
            raise ValueError(
                f"{path} was trained with split_seed={shown(seed)}, but the data has split_seed={now['split_seed']}: "
                f"documents that it was trained on would be evaluated. Set data.init_args.split_seed to {shown(seed)}, "
                f"{advice}"
            )
        if fraction < now["validation_fraction"]:
            raise ValueError(
                f"{path} was trained with validation_fraction={shown(fraction)}, but the data has "
                f"validation_fraction={now['validation_fraction']}: documents that it was trained on would be "
                f"evaluated. Set data.init_args.validation_fraction to {shown(fraction)} or less, {advice}"
            )
