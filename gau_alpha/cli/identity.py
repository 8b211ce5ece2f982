"""Whether a checkpoint and the data that it is given belong together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn

from datamodules import TextFiles
from datamodules.split import Split
from gau_alpha.checkpoints import is_folder, same_files, tokenizer_files, tokenizer_fingerprint
from gau_alpha.checkpoints.identity import SHORT, tokenizer_label
from gau_alpha.cli.splits import earlier_splits, not_implied, own_split, splits_of
from gau_alpha.cli.stored_data import data_of, run_of
from gau_alpha.cli.stored_tokenizer import tokenizer_of
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.registry import Description

ALLOW_MISMATCH = (
    "Evaluate or train even where the data is not what the checkpoint was trained with, or where the checkpoint does "
    "not say. Results carry a note."
)
"""Help of ``--allow_mismatch``."""


class Evaluation(NamedTuple):
    """What a checkpoint is evaluated on.

    Attributes:
        data: The data module.
        notes: What contradicts the checkpoint, and was allowed.
        tokenizer: Names the tokenizer that the data is read with.
    """

    data: Any
    notes: list[str]
    tokenizer: str


def check_belongs(checkpoint: Mapping[str, Any], path: str, datamodule: Any, command: str, allowed: bool) -> Evaluation:
    """Refuse data that contradicts a checkpoint, or warn where that was asked for.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.
        datamodule: What the command is to read.
        command: ``predict`` reads all that there is; others evaluate what should not have been trained on.
        allowed: Whether to warn only.

    Returns:
        The data module, evaluating only what all training of the weights held out, and what contradicts the checkpoint.

    Raises:
        ValueError: If something does and that is not allowed.
    """
    found = _other_tokenizer(checkpoint, path, datamodule)
    rules: list[Split] = []
    if command != "predict" and (now := _rule(datamodule)) is not None:
        found += _other_split(checkpoint, path, now) + _cut_otherwise(checkpoint, path, datamodule)
        rules, doubts = _earlier(earlier_splits(checkpoint, path), path, datamodule, allowed)
        found += [] if command == "fit" else doubts  # whose own validation is told nothing of by another run
    found = _allowed(found, allowed)
    data = datamodule.for_evaluation(rules=rules) if rules and not allowed else datamodule
    return Evaluation(data, found, tokenizer_label(data))


def after_parent(path: str, datamodule: Any) -> Any:
    """Let a run that starts from other weights validate on what their training held out, too.

    Args:
        path: The checkpoint or folder.
        datamodule: The run's.

    Raises:
        ValueError: If it is neither.
    """
    if _rule(datamodule) is None:
        return datamodule
    rules, doubts = _earlier(splits_of(Path(path)), path, datamodule, allowed=False)
    for one in doubts:
        rank_zero_warn(f"{printable(one)}: validation may read some of them.")
    return datamodule.for_evaluation(rules=rules) if rules and hasattr(datamodule, "for_evaluation") else datamodule


def check_each(checkpoints: Mapping[str, Mapping[str, Any]], datamodule: Any, allowed: bool) -> dict[str, Evaluation]:
    """Find for each of several checkpoints what to evaluate it on.

    Each is read with its own tokenizer, which it carries, and all on documents that every one of them held out.

    Args:
        checkpoints: What ``read_checkpoint`` returned, by path.
        datamodule: What the command is to read.
        allowed: Whether to warn only where a checkpoint does not say what is needed, or contradicts the data.

    Returns:
        By path. Checkpoints of one tokenizer share a data module.

    Raises:
        ValueError: If a checkpoint does not say what is needed and that is not allowed.
    """
    rules: dict[Split, None] = {}
    found: dict[str, list[str]] = {path: [] for path in checkpoints}
    now = _rule(datamodule)
    for path, checkpoint in checkpoints.items():
        if now is None:
            break
        own = own_split(checkpoint, path)
        other = _other_split(checkpoint, path, now)
        found[path] += _cut_otherwise(checkpoint, path, datamodule)
        if other and (own is None or allowed or not hasattr(datamodule, "for_evaluation")):
            found[path] += other
        elif own is not None:
            rules |= dict.fromkeys(not_implied([own], now))
        more, doubts = _earlier(earlier_splits(checkpoint, path), path, datamodule, allowed)
        rules |= dict.fromkeys(more)
        found[path] += doubts
    shared = datamodule.for_evaluation(rules=list(rules)) if rules and not allowed else datamodule
    datas = [shared]
    given: dict[str, Any] = {}
    labels: dict[int, str] = {id(shared): tokenizer_label(shared)}
    for path, checkpoint in checkpoints.items():
        fitting = (one for one in datas if not _other_tokenizer(checkpoint, path, one))
        data = next(fitting, None)
        if data is None and path != next(iter(checkpoints)):  # the first one's data is what was asked for
            data = _with_own_tokenizer(checkpoint, path, shared)
            if data is not None:
                datas.append(data)
                labels[id(data)] = tokenizer_label(data, checkpoint)
        if data is None:
            found[path] += _other_tokenizer(checkpoint, path, shared)
        given[path] = data or shared
    _allowed([one for notes in found.values() for one in notes], allowed)
    return {
        path: Evaluation(given[path], list(map(printable, found[path])), labels[id(given[path])])
        for path in checkpoints
    }


def _allowed(found: list[str], allowed: bool) -> list[str]:
    """Warn of what contradicts a checkpoint, or refuse it."""
    found = [printable(one) for one in found]
    if found and not allowed:
        raise ValueError(
            f"{'; '.join(found)}. Numbers would mean nothing: documents would be read otherwise than in training, or "
            f"were trained on. Give the data that the checkpoint was trained with (its tokenizer is inside: `gau-alpha "
            f"convert` writes it into a folder); or --allow_mismatch true if you know better: results then carry a "
            f"note."
        )
    for one in found:
        rank_zero_warn(f"{one} (allowed by --allow_mismatch).")
    return found


def _other_split(checkpoint: Mapping[str, Any], path: str, now: Mapping[str, Any]) -> list[str]:
    """Say whether documents would be evaluated that a checkpoint's run was trained on.

    What a smaller fraction holds out is part of what a larger one does, so a smaller one than in training will do.
    """
    own = own_split(checkpoint, path)
    if own is None and "config" not in run_of(checkpoint, path) and _says_all(earlier_splits(checkpoint, path)):
        return []  # made of a folder, it has no run of its own
    if own is None and is_folder(path):  # of other software: nobody can say, and there is no other file to ask
        rank_zero_warn(f"{path} does not say what it was trained on: see to it that these documents are none of that.")
        return []
    if own is None:
        return [f"{path} does not say which documents it held out by their text"]
    if own.seed != now["split_seed"]:
        return [f"{path} was trained with split_seed={own.seed}, but the data has split_seed={now['split_seed']}"]
    if own.fraction < now["validation_fraction"]:
        return [
            f"{path} was trained with validation_fraction={own.fraction}, but the data has "
            f"validation_fraction={now['validation_fraction']}"
        ]
    return []


def _rule(datamodule: Any) -> dict[str, Any] | None:
    """Ask by which rule documents are held out; None where it is none of ours."""
    return datamodule.split_rule() if hasattr(datamodule, "split_rule") else None


def _cut_otherwise(checkpoint: Mapping[str, Any], path: str, datamodule: Any) -> list[str]:
    """Say whether the files that were trained on are cut into other documents, whose hashes are others too."""
    stored, now = data_of(checkpoint, path), getattr(datamodule, "source", None)
    source = None if stored is None else stored.arguments.get("source")
    if not isinstance(now, TextFiles) or not isinstance(source, Description) or source.cls is not TextFiles:
        return []
    trained = bool(source.arguments.get("per_line"))
    before, here = (
        sorted(str(Path(one).resolve()) for one in paths) for paths in (source.arguments["paths"], now.paths)
    )
    if before != here or trained == now.per_line:
        return []
    return [f"{path} was trained on these files with per_line={trained}, but the data has per_line={now.per_line}"]


def _says_all(splits: Sequence[Split | None]) -> bool:
    return bool(splits) and None not in splits


def _earlier(
    earlier: Sequence[Split | None], path: str, datamodule: Any, allowed: bool
) -> tuple[list[Split], list[str]]:
    """Return what else must have held out a document that is evaluated, and what speaks against evaluating."""
    now = _rule(datamodule)
    if now is None or now["by"] != "text":  # labels are no part of the text that was pretrained on
        return [], []
    rules = not_implied(earlier, now)
    doubts = []
    if None in earlier:
        doubts.append(f"{path} comes of weights that do not say which documents they were trained on")
    if rules and (allowed or not hasattr(datamodule, "for_evaluation")):
        said = ", ".join(f"split_seed={one.seed} validation_fraction={one.fraction}" for one in rules)
        doubts.append(f"the weights of {path} were also trained under another split ({said})")
    return rules, doubts


def _other_tokenizer(checkpoint: Mapping[str, Any], path: str, datamodule: Any) -> list[str]:
    """Say whether text would be read otherwise than in training."""
    tokenizer = getattr(datamodule, "tokenizer", None)
    if tokenizer is None:  # a data module that knows of ids alone
        return []
    trained, given = tokenizer_fingerprint(checkpoint), tokenizer.fingerprint()
    carried = run_of(checkpoint, path).get("tokenizer")
    if trained == given or (carried and same_files(carried, tokenizer_files(tokenizer))):  # under another name
        return []
    if trained is None and not carried:
        return [f"{path} does not say which tokenizer it was trained with; the data has {_short(given)}"]
    if trained is None:
        return [f"{path} carries another tokenizer than the data, which has {_short(given)}"]
    return [f"{path} was trained with the tokenizer {_short(trained)}, the data has {_short(given)}"]


def _with_own_tokenizer(checkpoint: Mapping[str, Any], path: str, datamodule: Any) -> Any:
    """Read the data with the tokenizer that a checkpoint was trained with; None if it is not to be had."""
    if not hasattr(datamodule, "for_evaluation"):
        return None
    carried = run_of(checkpoint, path).get("tokenizer")
    trained = tokenizer_fingerprint(checkpoint)
    if not carried and trained is None:
        return None
    tokenizer, _ = tokenizer_of(checkpoint, Path(path))
    if not carried and tokenizer.fingerprint() != trained:  # named by its path, where another lies by now
        return None
    return datamodule.for_evaluation(tokenizer)


def _short(fingerprint: str) -> str:
    """Show enough of a fingerprint to tell it from others: hashes are long."""
    return repr(fingerprint if len(fingerprint) <= SHORT else f"{fingerprint[:12]}…")
