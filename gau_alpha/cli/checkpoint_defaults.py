"""What a checkpoint, or a folder, remembers of its model and its data: the defaults of a command that names it."""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gau_alpha.checkpoints import folder_config, read_evaluated
from gau_alpha.checkpoints.identity import RUN_KEY
from gau_alpha.cli.arguments import checkpoint_in, models
from gau_alpha.cli.stored_data import data_of, run_of
from gau_alpha.finetuning.module import GAUAlphaFineTuning
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.registry import Description, described

FILLED_IN = ("train_length", "vocab_size", "labels")
"""What the model takes from the data, so that it is never typed."""


def names_head(args: list[str]) -> bool:
    """Say whether the model has a head to fine-tune: as typed, as written, or as a checkpoint remembers."""
    typed = any(option.split("=")[0].startswith("--model.head") for option in args)
    if typed or any(model.get("head") for model in models(args)):
        return True
    path = checkpoint_in(args)
    return bool(path and Path(path).is_file() and "head" in checkpoint_defaults(Path(path)).arguments)


def defaults_to_start(path: Path) -> dict[str, Any]:
    """Return sizes and method of what training starts from as defaults of a parser."""
    if path.is_dir():
        config, described = folder_config(path)
    else:
        arguments = checkpoint_defaults(path).arguments
        config, described = arguments["config"].arguments, arguments["method"].as_dict()["init_args"]
    defaults = {f"model.config.{name}": value for name, value in config.items() if name not in FILLED_IN}
    if described is not None:
        # It was made for the length of its training rows; now that of the data counts.
        axes = _without_length(described)
        defaults["model.method"] = {"class_path": "gau_alpha.AttentionMethod", "init_args": axes}
    return defaults


def _without_length(described: Any) -> Any:
    if isinstance(described, list):
        return [_without_length(one) for one in described]
    if not isinstance(described, dict):
        return described
    return {name: _without_length(value) for name, value in described.items() if name != "train_length"}


def defaults_from(found: "CheckpointDefaults") -> dict[str, Any]:
    """Return a checkpoint's model, and the data it was trained on, as defaults of a parser."""
    arguments = {name: value for name, value in described(found.arguments).items() if name not in FILLED_IN}
    config = arguments.pop("config")["init_args"]
    defaults = {f"model.config.{name}": value for name, value in config.items() if name not in FILLED_IN}
    defaults |= {f"model.{name}": value for name, value in arguments.items()}
    return defaults | ({} if found.data is None else {"data": found.data.as_dict()})


class CheckpointDefaults(NamedTuple):
    """What a checkpoint remembers, held against our tables.

    Attributes:
        arguments: Of the module: plain data, and descriptions of objects.
        data: Of the run; None if it says nothing.
        carried: What the checkpoint says to carry of its tokenizer's files; not looked at yet.
    """

    arguments: dict[str, Any]
    data: Description | None
    carried: Any

    @property
    def tokenizer(self) -> Description | None:
        """What the run's data named; None if it named none."""
        return None if self.data is None else self.data.arguments.get("tokenizer")


def checkpoint_defaults(path: Path) -> CheckpointDefaults:
    """Read what a checkpoint remembers of its model and its data.

    Args:
        path: The checkpoint, or a Hugging Face folder, which remembers no data.

    Raises:
        ValueError: If it can't be read, or names a class that is none of ours and not trusted.
    """
    stored = _read_once(path, path.stat().st_mtime_ns if path.is_file() else 0)
    kind = GAUAlphaFineTuning if "head" in stored["hyper_parameters"] else GAUAlphaModule
    arguments = kind.stored_arguments(stored["hyper_parameters"], str(path))
    return CheckpointDefaults(arguments, data_of(stored, str(path)), run_of(stored, str(path)).get("tokenizer"))


@lru_cache(maxsize=1)
def _read_once(path: Path, changed: int) -> dict[str, Any]:
    """Read a checkpoint and drop its weights, which take time to read."""
    checkpoint = read_evaluated(path)
    return {name: checkpoint[name] for name in ("hyper_parameters", RUN_KEY) if name in checkpoint}
