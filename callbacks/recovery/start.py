"""Whether a ``fit`` may begin in a folder, or go on there, and from which checkpoint."""

from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.recovery.resume import checkpoint_folders, keep_tables, latest_valid_checkpoint, saved_checkpoints
from callbacks.recovery.run_folder import LOCK, RunFolder, run_id_of
from callbacks.run_path import run_path
from gau_alpha.checkpoints import read_checkpoint

OVERWRITE = """For fit: if the run's folder holds a run already, remove that run's files, those that its record lists
and no others, and begin anew. Other commands accept the option and do nothing with it."""
"""The help of ``--overwrite``."""


class Start(NamedTuple):
    """How a ``fit`` starts.

    Attributes:
        folder: The run's; on the first process it is claimed.
        ckpt_path: What to resume from; None to start afresh.
        adopts: Whether the checkpoint may be another run's, as one named for a new run may.
    """

    folder: RunFolder
    ckpt_path: str | None
    adopts: bool


def start_run(trainer: Trainer, asked: str | None, auto_resume: bool, overwrite: bool) -> Start:
    """Claim the run's folder and choose what is resumed from, saying why; remove what killed processes left unfinished.

    Args:
        trainer: Built, but not started: processes may not know of each other yet.
        asked: The explicit ``ckpt_path``: a file, or a word that Lightning looks up.
        auto_resume: Whether to resume from the run's latest valid checkpoint.
        overwrite: Whether a run that is in the folder may be removed.

    Raises:
        ValueError: If the folder holds another run, or checkpoints of none that is recorded, or another process works
            in it; or if both options are given.
    """
    folder = RunFolder(run_path(trainer))
    if trainer.is_global_zero:
        folder.claim()
        try:
            _prepare(trainer, folder, asked, auto_resume, overwrite)
            keep_tables(trainer, folder)
        except BaseException:
            folder.release()
            raise
    begun = folder.run_id is not None
    if asked is not None:
        if auto_resume:
            rank_zero_info(f"auto_resume: --ckpt_path {asked} was given and wins")
        return Start(folder, asked, adopts=not begun)
    if not auto_resume:
        return Start(folder, None, adopts=False)
    choice = latest_valid_checkpoint(saved_checkpoints(trainer) if begun else (), folder.run_id)
    for reason in choice.reasons:
        rank_zero_info(f"auto_resume: {reason}")
    return Start(folder, None if choice.path is None else str(choice.path), adopts=False)


def _prepare(trainer: Trainer, folder: RunFolder, asked: str | None, auto_resume: bool, overwrite: bool) -> None:
    if overwrite and auto_resume:
        raise ValueError("auto_resume goes on with a run and overwrite removes it: give one of them.")
    named = Path(asked) if asked is not None and Path(asked).is_file() else None
    if overwrite:
        if named is not None and named.absolute().is_relative_to(folder.path.absolute()):
            raise ValueError(
                f"overwrite would remove the run that --ckpt_path {asked} belongs to: give another version."
            )
        for path in folder.remove_run():
            rank_zero_info(f"overwrite: removed {path}")
        if left := sorted(path.name for path in folder.path.iterdir() if path.name != LOCK):
            rank_zero_info(f"overwrite: {folder.path} still holds what no run has listed: {', '.join(left)}")
    else:
        for path in folder.remove_unfinished():
            rank_zero_info(f"removed {path}, which was not finished")
    if folder.run_id is not None:
        # a word that Lightning looks up is held against the run once the checkpoint is read
        goes_on = auto_resume if asked is None else named is None or _owner(named) == folder.run_id
        if not goes_on:
            other = f", and {asked} was saved by another" if named else ""
            raise ValueError(
                f"{folder.path} holds a run already (id {folder.run_id}){other}. Go on with it by --auto_resume true"
                f"{' and no --ckpt_path' if named else ''}, give another {_another(trainer)}, or begin anew by "
                f"--overwrite true, which removes the files that its record lists and no others."
            )
        return
    here = {path.absolute() for one in checkpoint_folders(trainer) for path in one.glob("*.ckpt")}
    if strays := sorted(path.name for path in here if path.is_file()):
        raise ValueError(
            f"{checkpoint_folders(trainer)[0]} holds checkpoints of a run that is not recorded here "
            f"({', '.join(strays[:3])}). Move them away, or give another {_another(trainer)}; with --ckpt_path FILE a "
            f"new run goes on from one."
        )


def _owner(path: Path) -> str | None:
    return run_id_of(read_checkpoint(path))


def _another(trainer: Trainer) -> str:
    return "--trainer.logger.version" if trainer.loggers else "--trainer.default_root_dir"
