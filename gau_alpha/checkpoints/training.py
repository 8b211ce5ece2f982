"""Lightning checkpoints of ``GAUAlphaModule``, read as plain data and without Lightning."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from gau_alpha.checkpoints.tensors import load_plain
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.method import AttentionMethod
from gau_alpha.presets import method_from

MODEL_PREFIX = "model."
"""What the names of a model's weights begin with in a checkpoint of the module around it."""


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint of a ``GAUAlphaModule`` as plain data.

    Args:
        path: The file.

    Returns:
        The checkpoint, with ``state_dict`` and ``hyper_parameters``.

    Raises:
        ValueError: If it is no such checkpoint, or holds anything but plain data and tensors.
    """
    path = Path(path)
    if path.is_dir() and (path / ".metadata").is_file():
        raise ValueError(
            f"{path} is a sharded checkpoint, a piece from each process. If it is your own (pieces are unpickled), put "
            f"its weights into one file with\n  python -m lightning.fabric.utilities.consolidate_checkpoint {path} "
            f"--output_file {path}.consolidated.ckpt"
        )
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}.")
    checkpoint = load_plain(path)
    parts = ("state_dict", "hyper_parameters")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(part), dict) for part in parts):
        raise ValueError(f"{path} is not a checkpoint of a GAUAlphaModule: it lacks {' or '.join(parts)}.")
    lacking = {"config", "train_length", "method"} - checkpoint["hyper_parameters"].keys()
    if lacking:
        raise ValueError(f"{path} is not a checkpoint of a GAUAlphaModule: it lacks {', '.join(sorted(lacking))}.")
    checkpoint["state_dict"] = plain_names(checkpoint["state_dict"])
    return checkpoint


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as if nothing had been compiled: ``torch.compile`` puts a prefix before what it wraps."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in weights.items()}


def model_of(checkpoint: dict[str, Any]) -> tuple[GAUAlphaConfig, AttentionMethod, dict[str, Tensor]]:
    """Take sizes, method and weights out of a checkpoint.

    Args:
        checkpoint: What ``read_checkpoint`` returned.

    Returns:
        The config, the method, and the model's state dict.
    """
    arguments = checkpoint["hyper_parameters"]
    weights = {
        name.removeprefix(MODEL_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(MODEL_PREFIX)
    }
    return GAUAlphaConfig(**arguments["config"]), method_from(arguments["method"]), weights
