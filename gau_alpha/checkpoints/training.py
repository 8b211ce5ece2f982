"""Lightning checkpoints of ``GAUAlphaModule``, read as plain data and without Lightning."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import METHODS, method_from
from gau_alpha.checkpoints.chosen_weights import choose
from gau_alpha.checkpoints.tensors import check_sizes, load_plain
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.untrusted.registry import Registry, shown

MODEL_PREFIX = "model."
"""What the names of a model's weights begin with in a checkpoint of the module around it."""

MODELS = METHODS | Registry({GAUAlphaConfig: [GAUAlphaConfig]})
"""What a file may name of a model."""


_TEXTS = (".yaml", ".yml", ".json", ".jsonl", ".txt", ".md", ".csv")


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a Lightning checkpoint of a ``GAUAlphaModule`` as plain data.

    Args:
        path: The file.

    Returns:
        The checkpoint, with ``state_dict`` and ``hyper_parameters``.

    Raises:
        ValueError: If it is no such checkpoint, holds anything but plain data and tensors, or fewer weights than a
            model of the sizes that it states.
    """
    checkpoint = read_training_state(path)
    config = MODELS.describe(
        GAUAlphaConfig, checkpoint["hyper_parameters"]["config"], f"{path}: hyper_parameters.config"
    ).build()
    check_sizes(config, checkpoint["state_dict"], str(path))
    return checkpoint


def read_training_state(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint whose weights may be elsewhere, as plain data.

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
    if (path / "config.json").is_file():
        raise ValueError(
            f"{path} is a Hugging Face folder, no checkpoint: make one of it with `gau-alpha convert {path} FILE.ckpt`."
        )
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}.")
    if path.suffix in _TEXTS:
        raise ValueError(f"{path} is a file of text, no checkpoint, which `fit` writes as checkpoints/*.ckpt.")
    checkpoint = load_plain(path)
    if isinstance(checkpoint, dict):
        choose(checkpoint, str(path))
    parts = ("state_dict", "hyper_parameters")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(part), dict) for part in parts):
        raise ValueError(f"{path} is not a checkpoint of a GAUAlphaModule: it lacks {' or '.join(parts)}.")
    weights, arguments = checkpoint["state_dict"], checkpoint["hyper_parameters"]
    if lacking := {"config", "train_length", "method"} - arguments.keys():
        raise ValueError(f"{path} is not a checkpoint of a GAUAlphaModule: it lacks {', '.join(sorted(lacking))}.")
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in weights.items()):
        raise ValueError(f"{path}: state_dict holds something other than named tensors.")
    checkpoint["state_dict"] = plain_names(weights)
    MODELS.describe(GAUAlphaConfig, arguments["config"], f"{path}: hyper_parameters.config").build()
    train_length = arguments["train_length"]
    if type(train_length) is not int or train_length < 1:
        raise ValueError(
            f"{path}: hyper_parameters.train_length must be a number of tokens, 1 or more, got {shown(train_length)}."
        )
    if isinstance(arguments["method"], str):  # a preset, which does not say what it was trained at
        method = method_from(arguments["method"], f"{path}: hyper_parameters.method")
        arguments["method"] = method.with_train_length(train_length).describe()
    return checkpoint


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as if nothing had been compiled: ``torch.compile`` puts a prefix before what it wraps."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in weights.items()}


def model_of(checkpoint: dict[str, Any], where: str) -> tuple[GAUAlphaConfig, AttentionMethod, dict[str, Tensor]]:
    """Take sizes, method and weights out of a checkpoint.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        where: The file, for messages.

    Returns:
        The config, the method, and the model's state dict.

    Raises:
        ValueError: If the method is none of ours, and none that the user trusts.
    """
    arguments = checkpoint["hyper_parameters"]
    config = MODELS.describe(GAUAlphaConfig, arguments["config"], f"{where}: hyper_parameters.config").build()
    return config, method_from(arguments["method"], f"{where}: hyper_parameters.method"), weights_of(checkpoint)


def weights_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Take the model's state dict out of a checkpoint.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
    """
    return {
        name.removeprefix(MODEL_PREFIX): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(MODEL_PREFIX)
    }
