"""Whether a checkpoint and the data that it is given belong together."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from gau_alpha.checkpoints import tokenizer_files, tokenizer_fingerprint
from gau_alpha.cli.stored_data import data_of, run_of
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.registry import shown

ALLOW_MISMATCH = (
    "Evaluate or train even where the data is not what the checkpoint was trained with, or where the checkpoint does "
    "not say. Results carry a note."
)
"""Help of ``--allow_mismatch``."""


def _other_split(checkpoint: Mapping[str, Any], path: str, datamodule: Any) -> list[str]:
    """Say whether documents would be evaluated that a checkpoint was trained on.

    What a smaller fraction holds out is part of what a larger one does, so a smaller one than in training will do. A
    data module without ``split_rule`` holds out in a way of its own, and nothing is checked.
    """
    if not hasattr(datamodule, "split_rule"):
        return []
    now, stored = datamodule.split_rule(), data_of(checkpoint, path)
    seed, fraction = (
        None if stored is None else stored.arguments.get(name) for name in ("split_seed", "validation_fraction")
    )
    if seed is None or fraction is None:
        return [f"{path} does not say which documents it held out by their text"]
    if seed != now["split_seed"]:
        return [f"{path} was trained with split_seed={shown(seed)}, but the data has split_seed={now['split_seed']}"]
    if fraction < now["validation_fraction"]:
        return [
            f"{path} was trained with validation_fraction={shown(fraction)}, but the data has "
            f"validation_fraction={now['validation_fraction']}"
        ]
    return []


def _other_tokenizer(checkpoint: Mapping[str, Any], path: str, datamodule: Any) -> list[str]:
    """Say whether text would be read otherwise than in training."""
    tokenizer = getattr(datamodule, "tokenizer", None)
    if tokenizer is None:  # a data module that knows of ids alone
        return []
    trained, given = tokenizer_fingerprint(checkpoint), tokenizer.fingerprint()
    carried = run_of(checkpoint, path).get("tokenizer")
    if trained == given or (carried and carried == tokenizer_files(tokenizer)):  # the same under another name
        return []
    if trained is None and not carried:
        return [f"{path} does not say which tokenizer it was trained with; the data has {_short(given)}"]
    if trained is None:
        return [f"{path} carries another tokenizer than the data, which has {_short(given)}"]
    return [f"{path} was trained with the tokenizer {_short(trained)}, the data has {_short(given)}"]


def check_belongs(
    checkpoint: Mapping[str, Any], path: str, datamodule: Any, evaluates: bool, allowed: bool
) -> list[str]:
    """Refuse data that contradicts a checkpoint, or warn where that was asked for.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.
        datamodule: What the command is to read.
        evaluates: Whether only documents are read that should not have been trained on.
        allowed: Whether to warn only.

    Returns:
        What contradicts it.

    Raises:
        ValueError: If something does and that is not allowed.
    """
    found = _other_tokenizer(checkpoint, path, datamodule)
    found += _other_split(checkpoint, path, datamodule) if evaluates else []
    found = [printable(one) for one in found]
    if found and not allowed:
        raise ValueError(
            f"{'; '.join(found)}. Numbers would mean nothing: documents would be read otherwise than in training, or "
            f"were trained on. Give the data that the checkpoint was trained with (its tokenizer is inside: `gau-alpha "
            f"convert` writes it into a folder), and evaluate checkpoints of different data in commands of their own; "
            f"or --allow_mismatch true if you know better: results then carry a note."
        )
    for one in found:
        rank_zero_warn(f"{one} (allowed by --allow_mismatch).")
    return found


def _short(fingerprint: str) -> str:
    """Show enough of a fingerprint to tell it from others: hashes are long."""
    return repr(fingerprint if len(fingerprint) <= 24 else f"{fingerprint[:12]}…")
