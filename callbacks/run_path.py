"""The folder of a run: the run's own, whichever logger it has, if any."""

from os import PathLike
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger


def run_path(trainer: Trainer) -> Path:
    """Return the folder of a trainer's run, where its checkpoints lie by default, too.

    That of a logger which has a folder for each run (TensorBoard, CSV), below the folder of others by their name and
    version, and ``default_root_dir`` without a logger. Lightning's ``log_dir`` is the same for all runs of such others.

    Args:
        trainer: Built. A logger that numbers its runs only when they begin, as W&B and MLflow do, begins its run on the
            first process; on others, which may not know of it yet, use ``shared_run_path``.
    """
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    own = own_folder(logger)
    if own is not None:
        return own
    if trainer.is_global_zero and logger.version is None:
        getattr(logger, "experiment", None)  # a property that begins the run, as Lightning does a little later
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def shared_run_path(trainer: Trainer) -> Path:
    """Return the folder of a trainer's run as the first process knows it; a collective.

    Args:
        trainer: Running.
    """
    path = str(run_path(trainer)) if trainer.is_global_zero else ""
    return Path(trainer.strategy.broadcast(path))


def own_folder(logger: Logger) -> Path | None:
    """Return the folder that a logger has for this run alone; None where it has none, or tells none.

    Args:
        logger: Any of Lightning's, or one with the same interface.
    """
    folder = getattr(logger, "log_dir", None)  # of the one of a fast_dev_run any attribute is a function
    return Path(folder) if isinstance(folder, str | PathLike) else None
