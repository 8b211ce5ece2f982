"""Whether a checkpoint and the data that it is given belong together."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from gau_alpha.checkpoints import tokenizer_files, tokenizer_fingerprint
from gau_alpha.cli.stored_data import run_of
from gau_alpha.untrusted.printable import printable

ALLOW_MISMATCH = (
    "Evaluate or train even where the data is not what the checkpoint was trained with, or where the checkpoint does "
    "not say. Results carry a note."
)
"""Help of ``--allow_mismatch``."""


def mismatches(checkpoint: Mapping[str, Any], path: str, datamodule: Any) -> list[str]:
    """List what of the data contradicts a checkpoint, so that numbers would be wrong without a word.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.
        datamodule: What the command is to read.

    Returns:
        A sentence per contradiction; what the checkpoint does not say contradicts too.
    """
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


def check_belongs(checkpoint: Mapping[str, Any], path: str, datamodule: Any, allowed: bool) -> list[str]:
    """Refuse data that contradicts a checkpoint, or warn where that was asked for.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.
        datamodule: What the command is to read.
        allowed: Whether to warn only.

    Returns:
        What contradicts it.

    Raises:
        ValueError: If something does and that is not allowed.
    """
    found = [printable(one) for one in mismatches(checkpoint, path, datamodule)]
    if found and not allowed:
        raise ValueError(
            f"{'; '.join(found)}. Numbers would mean nothing. Give the data that the checkpoint was trained with (its "
            f"tokenizer is inside: `gau-alpha convert` writes it into a folder) and evaluate checkpoints of different "
            f"tokenizers in commands of their own; or --allow_mismatch true if you know better: results then carry a "
            f"note."
        )
    for one in found:
        rank_zero_warn(f"{one} (allowed by --allow_mismatch).")
    return found


def _short(fingerprint: str) -> str:
    """Show enough of a fingerprint to tell it from others: hashes are long."""
    return repr(fingerprint if len(fingerprint) <= 24 else f"{fingerprint[:12]}…")
