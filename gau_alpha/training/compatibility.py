"""A checkpoint compared with the module that is to load it, before its weights are loaded.

A checkpoint is what Lightning read of the file. A strategy that deals weights over processes loads them itself, and has
taken them out before.
"""

from dataclasses import asdict
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Module

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints import check_fit, plain_names
from gau_alpha.config import SHAPING, GAUAlphaConfig


def ready_to_train(checkpoint: dict[str, Any], module: Module, config: GAUAlphaConfig) -> None:
    """Check that training can go on from a checkpoint, and name its weights as the module does.

    Args:
        checkpoint: As read; changed in place.
        module: The module that loads it.
        config: Of the module's model.

    Raises:
        ValueError: If it holds another model, or weights alone.
    """
    _check_same_model(checkpoint, config)
    if "optimizer_states" not in checkpoint:
        raise ValueError(
            "The checkpoint holds weights only, no state of the optimizer: training can't go on from it. Start a "
            "new run from its weights with --model.init_from."
        )
    _fit_names(checkpoint, module)


def ready_to_evaluate(
    checkpoint: dict[str, Any], module: Module, config: GAUAlphaConfig, method: AttentionMethod, train_length: int
) -> None:
    """Check that a checkpoint can be evaluated, and make its weights those of the module, with its method.

    Args:
        checkpoint: As read; changed in place.
        module: The module that loads it.
        config: Of the module's model.
        method: Of the module's model. What it learns, and the checkpoint has not learned, stays as it starts, with a
            warning.
        train_length: The data's.

    Raises:
        ValueError: If it holds another model, or was trained on rows of another length.
    """
    _check_same_model(checkpoint, config)
    _check_train_length(checkpoint, train_length)
    _put_untrained_strategies(checkpoint, module, method)
    _fit_names(checkpoint, module)


def check_start(missing: str | None) -> None:
    """Refuse to run a module whose weights were to come from where there is nothing.

    Args:
        missing: What ``init_from`` named; None if it was there, or a checkpoint has brought the weights.

    Raises:
        ValueError: If something is missing.
    """
    if missing is not None:
        raise ValueError(
            f"There is nothing at model.init_from {missing!r} to start from, and no checkpoint to go "
            f"on with: correct the path, or name a checkpoint with --ckpt_path."
        )


def _check_same_model(checkpoint: dict[str, Any], config: GAUAlphaConfig) -> None:
    own = asdict(config)
    differing = [
        f"{name} is {value} in the checkpoint and {own[name]} here"
        for name, value in _stored(checkpoint).get("config", {}).items()
        if name in SHAPING and own[name] != value
    ]
    if differing:
        raise ValueError(f"The checkpoint holds another model: {'; '.join(differing)}.")


def _check_train_length(checkpoint: dict[str, Any], train_length: int) -> None:
    trained = _stored(checkpoint).get("train_length", train_length)
    if trained != train_length:
        raise ValueError(
            f"The checkpoint was trained on rows of {trained} tokens, but the data has train_length "
            f"{train_length}, which methods would take for the length of training. Other lengths are "
            f"measured by `gau-alpha extrapolate`."
        )


def _put_untrained_strategies(checkpoint: dict[str, Any], module: Module, method: AttentionMethod) -> None:
    """Let another strategy than the trained one load: what it would have learned stays as it starts."""
    if "state_dict" not in checkpoint:
        return
    trained = _stored(checkpoint).get("method", {})
    weights, own = checkpoint["state_dict"], module.state_dict()
    for axis, strategy in method.axes():
        if trained.get(axis, {}).get("class_path") == strategy.describe()["class_path"]:
            continue
        part = f".gau.method.{axis}."
        learned = {name: tensor for name, tensor in own.items() if part in name}
        if learned:
            rank_zero_warn(f"{strategy!r} is learned in training, and this checkpoint was trained without it.")
        checkpoint["state_dict"] = weights = {
            **{name: tensor for name, tensor in weights.items() if part not in name},
            **learned,
        }


def _fit_names(checkpoint: dict[str, Any], module: Module) -> None:
    """Give the weights the names that the module, compiled or not, has for them, and see that they fit."""
    if "state_dict" not in checkpoint:
        return
    own = {plain: name for name, plain in zip(module.state_dict(), plain_names(module.state_dict()), strict=True)}
    weights: dict[str, Tensor] = plain_names(checkpoint["state_dict"])
    checkpoint["state_dict"] = {own.get(name, name): tensor for name, tensor in weights.items()}
    check_fit(module, checkpoint["state_dict"], "the checkpoint")


def _stored(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint.get("hyper_parameters", {})
