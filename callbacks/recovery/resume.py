"""``fit --auto_resume true``: a restarted command goes on where it was interrupted."""

from itertools import count
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_info
from lightning_utilities.core.imports import RequirementCache

from callbacks.recovery.resumption import checkpoint_folders, newest_whole
from gau_alpha.checkpoints.atomic_write import remove_unfinished

AUTO_RESUME = """For fit: go on from the newest whole checkpoint of the run's folder, which damaged ones are passed over
for; start afresh if there is none. An explicit --ckpt_path wins. The run's folder must be the same at every start: a
logger without a version gets the version "auto". Other commands accept the option and do nothing with it, so that one
file serves all. If max_steps or max_epochs differ from those of the checkpoint, the learning rate follows the new
curve, but never above the rate that the checkpoint was saved at once the warm-up is over."""
"""The help of ``--auto_resume``."""

VERSION = "auto"
"""The version of a logger that was given none: a restarted command must find its folder again."""


def fix_version(trainer: Namespace) -> None:
    """Give the logger of a parsed config a version, where it would count up at every start.

    Args:
        trainer: The section ``trainer`` of the config.

    Raises:
        ValueError: If the logger is of a kind whose folder can't be foreseen.
    """
    if trainer.logger is False:
        return  # checkpoints lie in default_root_dir itself
    if trainer.logger in (None, True):
        # what Lightning would take
        kind = TensorBoardLogger if RequirementCache("tensorboard") else CSVLogger
        init_args = {"save_dir": trainer.default_root_dir or str(Path.cwd()), "version": VERSION}
        trainer.logger = Namespace(class_path=f"{kind.__module__}.{kind.__qualname__}", init_args=Namespace(init_args))
        return
    first = trainer.logger[0] if isinstance(trainer.logger, list) else trainer.logger
    if first.init_args.get("version") is not None:
        return
    if first.class_path.rpartition(".")[2] not in ("TensorBoardLogger", "CSVLogger"):
        raise ValueError(
            f"auto_resume needs a folder that is the same at every start, and {first.class_path} has no version: give "
            f"one with --trainer.logger.init_args.version NAME."
        )
    first.init_args.version = VERSION
    rank_zero_info(
        f"auto_resume: the logger has no version, and gets {VERSION!r}. For another run of the same name give "
        f"--trainer.logger.init_args.version NAME."
    )


def resume(trainer: Trainer, asked: str | None) -> str | None:
    """Choose what to go on from and say why.

    Args:
        trainer: Built, but not started: processes may not know of each other yet.
        asked: The explicit ``ckpt_path``.

    Returns:
        The value for ``ckpt_path``.
    """
    if asked:
        rank_zero_info(f"auto_resume: --ckpt_path {asked} was given and wins")
        return asked
    choice = newest_whole(checkpoint_folders(trainer))
    for reason in choice.reasons:
        rank_zero_info(f"auto_resume: {reason}")
    path = None if choice.path is None else str(choice.path)
    trainer.callbacks.append(SameChoice(path))  # type: ignore[attr-defined]  # Lightning sets it
    return path


def remove_leftovers(trainer: Trainer) -> None:
    """Remove unfinished files of killed processes from the run's folders.

    Args:
        trainer: Built, but not started.
    """
    for checkpoints in checkpoint_folders(trainer)[:-1]:
        for path in remove_unfinished(checkpoints.parent):
            rank_zero_info(f"auto_resume: removed {path}, which was not finished")


def keep_tables(trainer: Trainer) -> None:
    """Rename the tables that CSVLogger would delete as soon as it starts, since it never goes on with one.

    Args:
        trainer: Built, but not started.
    """
    for logger in trainer.loggers:
        if not isinstance(logger, CSVLogger):
            continue
        path = Path(logger.log_dir) / ExperimentWriter.NAME_METRICS_FILE
        if path.is_file():
            numbers = (path.with_stem(f"{path.stem}_{number}") for number in count(1))
            kept = path.rename(next(one for one in numbers if not one.exists()))
            rank_zero_info(f"CSVLogger begins a new {path.name}; what was logged before lies in {kept}")


class SameChoice(Callback):
    """Makes sure that all processes go on from the same checkpoint.

    Args:
        path: What this process chose.
    """

    def __init__(self, path: str | None) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare with the first process.

        Raises:
            ValueError: On every process, if one found something else.
        """
        first = trainer.strategy.broadcast(self.path)
        if not trainer.strategy.reduce_boolean_decision(first == self.path, all=True):
            raise ValueError(
                f"auto_resume: processes see different checkpoints: the first {first}, number {trainer.global_rank} "
                f"{self.path}. The run's folder must be shared between the machines."
            )
