"""What Lightning restores of a checkpoint besides weights: held against what it writes, before anybody uses it."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from gau_alpha.untrusted.registry import shown

PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")
"""Entries of a ModelCheckpoint that name a file: Lightning removes some of them when newer ones are written."""

SCORES = ("best_model_score", "current_score", "kth_value")
"""Entries of a ModelCheckpoint that hold a value of what it monitors."""


def check_form(stored: object, own: object, where: str) -> None:
    """Check that something of a checkpoint has the form of what it takes the place of.

    What one of the two has and the other has not is not looked at, nor what is None in a run that begins.

    Args:
        stored: What the checkpoint holds.
        own: The same of a run that begins: containers, numbers, texts, tensors.
        where: Names it in messages.

    Raises:
        ValueError: If there is a container, a tensor or a text in the place of a number, and so on, a list is longer or
            shorter, a tensor has another shape, or a number is not finite.
    """
    if own is None:
        return
    if isinstance(own, Mapping):
        if not isinstance(stored, Mapping):
            raise ValueError(f"{where} must hold entries by name, got {shown(stored)}.")
        for name in own.keys() & stored.keys():
            check_form(stored[name], own[name], f"{where}.{name}")
    elif isinstance(own, list | tuple):
        if not isinstance(stored, list | tuple) or len(stored) != len(own):
            raise ValueError(f"{where} must be a list of {len(own)}, got {shown(stored)}.")
        for i, (one, other) in enumerate(zip(stored, own, strict=True)):
            check_form(one, other, f"{where}[{i}]")
    elif isinstance(own, Tensor):
        if not isinstance(stored, Tensor) or stored.shape != own.shape or stored.is_complex():
            found = f"one of shape {tuple(stored.shape)}" if isinstance(stored, Tensor) else shown(stored)
            raise ValueError(f"{where} must be a tensor of real numbers of shape {tuple(own.shape)}, got {found}.")
    elif isinstance(own, int | float) and not isinstance(own, bool):
        if not isinstance(stored, int | float) or isinstance(stored, bool) or not math.isfinite(stored):
            raise ValueError(f"{where} must be a finite number, got {shown(stored)}.")
    elif isinstance(own, bool | str) and not isinstance(stored, type(own)):
        raise ValueError(f"{where} must be of type {type(own).__name__}, got {shown(stored)}.")


def check_training_state(checkpoint: Mapping[str, Any], where: str) -> None:
    """Check counts, and that callbacks name no file outside the folder of checkpoints.

    Args:
        checkpoint: As read.
        where: The file, for messages.

    Raises:
        ValueError: If an entry is of another type than Lightning writes, or a path leads elsewhere.
    """
    for name in ("epoch", "global_step"):
        if name in checkpoint:
            _check_count(checkpoint[name], f"{where}: {name}")
    for name, kind in (("loops", dict), ("callbacks", dict), ("optimizer_states", list), ("lr_schedulers", list)):
        if not isinstance(checkpoint.get(name, kind()), kind):
            raise ValueError(f"{where}: {name} must be a {kind.__name__}, got {shown(checkpoint[name])}.")
        entries = checkpoint.get(name, kind())
        for one in entries.values() if isinstance(entries, dict) else entries:
            if not isinstance(one, dict):
                raise ValueError(f"{where}: {name} must hold a dict for each, got {shown(one)}.")
    _check_progress(checkpoint.get("loops", {}), f"{where}: loops")
    for name, state in checkpoint.get("callbacks", {}).items():
        _check_saver(state, f"{where}: callbacks: {shown(name)}")


def ended_inside_epoch(checkpoint: Mapping[str, Any]) -> int | None:
    """Return the epoch that a checkpoint counts as done though batches of it were left; None if there is none.

    Where ``max_steps`` ends a run inside an epoch, Lightning runs the hooks of the epoch's end all the same, and a
    checkpoint that they save goes on with the next epoch. One that was saved after a step goes on inside of it.

    Args:
        checkpoint: As ``read_checkpoint`` returns it.
    """
    processed, ready = (
        _entry(checkpoint, "loops", "fit_loop", "epoch_progress", "current", count) for count in ("processed", "ready")
    )
    is_last_batch = _entry(checkpoint, "loops", "fit_loop", "epoch_loop.batch_progress", "is_last_batch")
    ended = processed is not None and processed == ready and is_last_batch is False
    return processed - 1 if ended else None


def _entry(state: Any, *names: str) -> Any:
    """Return what lies below names, one in the other; None if nothing does."""
    for name in names:
        state = state.get(name) if isinstance(state, Mapping) else None
    return state


def _check_progress(loops: Mapping[Any, Any], where: str) -> None:
    for name, value in loops.items():
        place = f"{where}.{name}" if isinstance(name, str) else f"{where}[{shown(name)}]"
        if name == "state_dict":  # what a loader or a user's loop keeps: whoever restores it checks it
            if not isinstance(value, dict):
                raise ValueError(f"{place} must hold entries by name, got {shown(value)}.")
            if not isinstance(value.get("combined_loader", []), list):
                raise ValueError(f"{place}.combined_loader must be a list, got {shown(value['combined_loader'])}.")
        elif isinstance(value, dict):
            _check_progress(value, place)
        elif not isinstance(value, bool):
            _check_count(value, place)


def _check_count(value: object, where: str) -> None:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{where} must be a count, 0 or more, got {shown(value)}.")


def _check_saver(state: Mapping[Any, Any], where: str) -> None:
    """Check what a ModelCheckpoint remembers; of other callbacks nothing has these names."""
    folder = state.get("dirpath")
    for path in _named_paths(state, where):
        if not isinstance(folder, str):
            raise ValueError(f"{where} names {shown(path)}, and no dirpath that it lies in.")
        inside = "://" not in path and os.path.normpath(path).startswith(os.path.join(os.path.normpath(folder), ""))
        if not inside:
            raise ValueError(f"{where} names {shown(path)}, which is not below its dirpath {shown(folder)}.")
    scores = {name: state[name] for name in SCORES if state.get(name) is not None} | state.get("best_k_models", {})
    for name, score in scores.items():
        if not isinstance(score, Tensor) or score.numel() != 1 or score.is_complex():
            raise ValueError(f"{where}: the score {shown(name)} must be a tensor of one number, got {shown(score)}.")


def _named_paths(state: Mapping[Any, Any], where: str) -> Iterator[str]:
    best = state.get("best_k_models", {})
    if not isinstance(best, dict):
        raise ValueError(f"{where}: best_k_models must hold scores by path, got {shown(best)}.")
    for path in (*(state[name] for name in PATHS if name in state), *best):
        if not isinstance(path, str):
            raise ValueError(f"{where}: a path must be a string, got {shown(path)}.")
        if path:
            yield path
