"""Which checkpoint an interrupted run goes on from."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from gau_alpha.checkpoints import read_checkpoint

_TRAINING = ("optimizer_states", "lr_schedulers", "loops")


class Choice(NamedTuple):
    """The newest whole checkpoint, None if there is none, and why it was chosen, line by line."""

    path: Path | None
    reasons: list[str]


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """List where a trainer's ModelCheckpoints write, and where Lightning saves under SLURM."""
    logger = trainer.loggers[0] if trainer.loggers else None
    if logger is None:
        default = Path(trainer.default_root_dir) / "checkpoints"
    else:
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        default = Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version / "checkpoints"
    written = [Path(x.dirpath) if x.dirpath else default for x in _savers(trainer)] or [default]
    return list(dict.fromkeys([*written, Path(trainer.default_root_dir)]))


def newest_whole(folders: Iterable[Path]) -> Choice:
    """Choose the checkpoint written last, passing over those that are damaged or can't be trained on.

    A pure function of the folders: every process that sees the same files chooses the same.

    Args:
        folders: Where checkpoints lie; not below.
    """
    folders = list(folders)
    found = {path for folder in folders for path in folder.glob("*.ckpt") if path.is_file()}
    reasons: list[str] = []
    for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True):
        try:
            checkpoint = read_checkpoint(path)
        except ValueError as error:
            reasons.append(f"passed over: {error}")
            continue
        if lacking := [name for name in _TRAINING if name not in checkpoint]:
            reasons.append(f"passed over: {path} holds weights only ({', '.join(lacking)} missing).")
            continue
        why = "the newest whole checkpoint" if reasons else "the newest checkpoint"
        reasons.append(f"going on from {path}, {why}, saved at step {checkpoint.get('global_step')}")
        return Choice(path, reasons)
    where = " or ".join(os.fspath(folder) for folder in folders)
    reasons.append(f"no {'whole ' if reasons else ''}checkpoint in {where}: starting afresh")
    return Choice(None, reasons)


def _savers(trainer: Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
