"""By which rules the documents were held out that a checkpoint's weights have not seen."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.split import Split
from gau_alpha.checkpoints import WEIGHTS, read_checkpoint, recipe_digest
from gau_alpha.checkpoints.checksum import read_hashed
from gau_alpha.checkpoints.identity import RUN_KEY, SEEN_KEY, SPLITS_KEY, TRAINING_DATA
from gau_alpha.cli.stored_data import data_of, run_of
from gau_alpha.untrusted.reading import read_json
from gau_alpha.untrusted.registry import shown


def own_split(checkpoint: Mapping[str, Any], path: str) -> Split | None:
    """Return the rule of the data that a checkpoint's run was set to; None if it does not say.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.

    Raises:
        ValueError: If what it says is no rule.
    """
    stored = data_of(checkpoint, path)
    return None if stored is None else _split(stored.arguments, f"{path}: data")


def earlier_splits(checkpoint: Mapping[str, Any], path: str) -> list[Split | None]:
    """List the other rules under which the weights were trained: by their parents, or before the run was resumed.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.

    Returns:
        Rules; None for one that is not known.

    Raises:
        ValueError: If what it says is no rule.
    """
    stored = run_of(checkpoint, path).get(SPLITS_KEY, [])
    if not isinstance(stored, list):
        raise ValueError(f"{path}: run.{SPLITS_KEY} must be a list, got {shown(stored)}.")
    own = own_split(checkpoint, path)
    found = [_split(one, f"{path}: run.{SPLITS_KEY}") if isinstance(one, Mapping) else None for one in stored]
    return [one for one in dict.fromkeys(found) if one is None or one != own]


def all_splits(checkpoint: Mapping[str, Any], path: str) -> list[dict[str, Any] | None]:
    """List all rules under which the weights were trained, as plain data: for the record of what goes on from them.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.

    Raises:
        ValueError: If what it says is no rule.
    """
    rules = dict.fromkeys([own_split(checkpoint, path), *earlier_splits(checkpoint, path)])
    return [None if one is None else one.describe() for one in rules]


def not_implied(rules: Iterable[Split | None], now: Mapping[str, Any]) -> list[Split]:
    """Select the rules that do not hold out all that another one does.

    Args:
        rules: The rules; None is left out.
        now: The other, as plain data. What it holds out, the same seed at a larger fraction holds out too.
    """
    return [
        one
        for one in dict.fromkeys(rules)
        if one is not None and (one.seed != now["split_seed"] or one.fraction < now["validation_fraction"])
    ]


def training_data(checkpoint: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Describe what a checkpoint's weights were trained on, as plain data: for what goes on from them.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        path: Where it was read, for messages.

    Returns:
        ``run``, its id; ``recipe``, which is the same for what differs in seeds alone; ``splits``, all rules of its
        training; and ``seen``, how much it was trained on.

    Raises:
        ValueError: If it can't be read.
    """
    run = run_of(checkpoint, path)
    return {
        "run": run.get("id"),
        "recipe": recipe_digest(checkpoint),
        SPLITS_KEY: all_splits(checkpoint, path),
        SEEN_KEY: run.get(SEEN_KEY),
    }


def started_from(path: Path) -> dict[str, Any]:
    """Describe the weights that training begins with, as plain data.

    Args:
        path: A checkpoint, or a Hugging Face folder.

    Returns:
        ``path`` and what ``training_data`` says; of a folder of other software, that its data is not known.

    Raises:
        ValueError: If it can't be read.
    """
    if not path.is_dir():
        return {"path": str(path), **training_data(read_checkpoint(path), str(path))}
    if (path / TRAINING_DATA).is_file():
        said = read_json(path / TRAINING_DATA)
        if not isinstance(said, dict) or not isinstance(said.get(SPLITS_KEY), list):
            raise ValueError(f"{path / TRAINING_DATA} must be an object with a list {SPLITS_KEY}, got {shown(said)}.")
        return {"path": str(path), **said}
    weights = path / WEIGHTS
    recipe = read_hashed(weights, lambda _: None)[1] if weights.is_file() else str(path.resolve())
    return {"path": str(path), "recipe": recipe, SPLITS_KEY: [None]}


def splits_of(path: Path) -> list[Split | None]:
    """Return all rules under which the weights of a checkpoint or folder were trained; None for one not known.

    Args:
        path: The checkpoint or folder.

    Raises:
        ValueError: If it can't be read.
    """
    said = started_from(path)[SPLITS_KEY]
    return [_split(one, str(path)) if isinstance(one, Mapping) else None for one in said]


def with_splits(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """Let what was read of a Hugging Face folder say what the folder's weights were trained on, if the folder does.

    Args:
        checkpoint: What ``read_evaluated`` returned.
        path: Where it was read; of a file nothing is changed.
    """
    if not (path / TRAINING_DATA).is_file():
        return checkpoint
    return {**checkpoint, RUN_KEY: {**checkpoint[RUN_KEY], SPLITS_KEY: started_from(path)[SPLITS_KEY]}}


def _split(stored: Mapping[str, Any], where: str) -> Split | None:
    seed, fraction = stored.get("split_seed"), stored.get("validation_fraction")
    if seed is None or fraction is None:
        return None
    try:
        return Split(seed, fraction)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
