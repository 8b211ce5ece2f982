"""What a checkpoint, or a folder, remembers of its model and its data: the defaults of a command that names it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from gau_alpha.checkpoints import folder_config, read_checkpoint
from gau_alpha.cli.arguments import checkpoint_in, models
from gau_alpha.cli.record import RUN_KEY

FILLED_IN = ("train_length", "vocab_size", "labels")
"""What the model takes from the data, so that it is never typed."""


def names_head(args: list[str]) -> bool:
    """Say whether the model has a head to fine-tune: as typed, as written, or as a checkpoint remembers."""
    typed = any(option.split("=")[0].startswith("--model.head") for option in args)
    if typed or any(model.get("head") for model in models(args)):
        return True
    path = checkpoint_in(args)
    return bool(path and Path(path).is_file() and "head" in remembered(Path(path))[0])


def tokenizer_of_run(data: dict[str, Any] | None) -> dict[str, Any] | None:
    """Take the tokenizer out of a run's data."""
    named = ((data or {}).get("init_args") or {}).get("tokenizer")
    named = {"class_path": named} if isinstance(named, str) else named
    return named if isinstance(named, dict) else None


def defaults_to_start(path: Path) -> dict[str, Any]:
    """Return sizes and method of what training starts from as defaults of a parser."""
    if path.is_dir():
        config, described = folder_config(path)
    else:
        arguments, _ = remembered(path)
        config, described = arguments["config"], arguments["method"]
    defaults = {f"model.config.{name}": value for name, value in config.items() if name not in FILLED_IN}
    if described is not None:
        # It was made for the length of its training rows; now that of the data counts.
        axes = {axis: _without_length(strategy) for axis, strategy in described.items()}
        defaults["model.method"] = {"class_path": "gau_alpha.AttentionMethod", "init_args": axes}
    return defaults


def _without_length(strategy: dict[str, Any]) -> dict[str, Any]:
    arguments = {name: value for name, value in strategy["init_args"].items() if name != "train_length"}
    return {**strategy, "init_args": arguments}


def defaults_from(path: str) -> dict[str, Any]:
    """Return a checkpoint's model, and the data it was trained on, as defaults of a parser."""
    stored, data = remembered(Path(path))
    arguments = dict(stored)
    config = arguments.pop("config")
    defaults = {f"model.config.{name}": value for name, value in config.items() if name not in FILLED_IN}
    defaults |= {f"model.{name}": value for name, value in arguments.items() if name not in FILLED_IN}
    defaults["model.method"] = {"class_path": "gau_alpha.AttentionMethod", "init_args": arguments["method"]}
    return defaults | ({"data": data} if data else {})


def remembered(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return a checkpoint's hyperparameters, and the section ``data`` of its run's config."""
    return _read_once(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=1)
def _read_once(path: Path, changed: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return what a checkpoint remembers of its model and its data; weights, which take time to read, are dropped."""
    checkpoint = read_checkpoint(path)
    return checkpoint["hyper_parameters"], checkpoint.get(RUN_KEY, {}).get("config", {}).get("data")
