"""A checkpoint compared with the module that is to load it, before its weights are loaded; what it may name.

A checkpoint is what Lightning read of the file. A strategy that deals weights over processes loads them itself, and has
taken them out before.
"""

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints import MODELS, check_fit, check_form, plain_names
from gau_alpha.config import SHAPING, GAUAlphaConfig
from gau_alpha.training import optimizers, schedules
from gau_alpha.training.joined import JoinedOptimizer
from gau_alpha.training.optimizers import OptimizerFactory, expected_state
from gau_alpha.training.schedules import Schedule
from gau_alpha.untrusted.limits import LARGEST_WHOLE
from gau_alpha.untrusted.registry import Registry, exported, shown

MODULES = MODELS | Registry(
    {
        OptimizerFactory: exported(optimizers, OptimizerFactory),
        Schedule: exported(schedules, Schedule),
    }
)
"""What a checkpoint may name of a module."""

FORMER = ("learning_rate", "weight_decay", "betas")
"""Arguments of modules before optimizers were named by class."""

NOT_KEPT = ("init_from", "activation_checkpointing")
"""Arguments that are the run's and no part of what a checkpoint is."""


def stored_arguments(cls: type, stored: object, where: str, registry: Registry = MODULES) -> dict[str, Any]:
    """Hold the hyperparameters of a checkpoint against the constructor of a module.

    Args:
        cls: The module's class.
        stored: As it saves them.
        where: The file, for messages.
        registry: What they may name.

    Returns:
        The constructor's arguments: plain data, or descriptions, of which ``gau_alpha.untrusted.registry.built`` makes
        objects.

    Raises:
        ValueError: If an argument is unknown or of the wrong type, names a class that is not ours and not trusted, or
            is from before optimizers were named by class.
    """
    if isinstance(stored, dict) and (former := [name for name in FORMER if name in stored]):
        raise ValueError(
            f"{where} was saved before optimizers were named by class: its hyper_parameters have {', '.join(former)}, "
            f"which are arguments of `optimizer` now. Its weights are as good as ever, to start a run from with "
            f"--model.init_from; to go on with it, or to evaluate it, use the version that made it."
        )
    return registry.arguments(cls, stored, f"{where}: hyper_parameters", NOT_KEPT)


def validate_and_remap_for_training(
    checkpoint: dict[str, Any], module: Module, config: GAUAlphaConfig, optimizer: OptimizerFactory
) -> None:
    """Check that training can go on from a checkpoint, and name its weights as the module does.

    Args:
        checkpoint: As read; changed in place.
        module: The module that loads it.
        config: Of the module's model.
        optimizer: The module's.

    Raises:
        ValueError: If it holds another model, weights alone, or the state of another optimizer.
    """
    _check_same_model(checkpoint, config)
    if not checkpoint.get("optimizer_states"):
        raise ValueError(
            "The checkpoint holds weights only, no state of the optimizer: training can't go on from it. Start a "
            "new run from its weights with --model.init_from."
        )
    _check_same_optimizer(checkpoint, optimizer)
    _fit_names(checkpoint, module)


def validate_and_remap_for_evaluation(
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


def check_trainer_state(checkpoint: dict[str, Any], trainer: Trainer) -> None:
    """Hold what Lightning will restore, without looking at it, against what the trainer has in these places.

    Args:
        checkpoint: As read.
        trainer: About to restore it.

    Raises:
        ValueError: If an entry has another form.
    """
    loops = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
    # callbacks of other software may keep what they like
    known = [one for one in trainer.callbacks if type(one).__module__.startswith("lightning.")]  # type: ignore[attr-defined]
    precision = trainer.precision_plugin
    own = {
        "loops": {name: getattr(trainer, name).state_dict() for name in loops},
        "callbacks": {one.state_key: one.state_dict() for one in known},
        type(precision).__qualname__: precision.state_dict(),
    }
    for name in own.keys() & checkpoint.keys():
        check_form(checkpoint[name], own[name], f"The checkpoint's {name}")


def check_optimizer_state(optimizer: Optimizer, stored: dict[str, Any]) -> dict[str, Any]:
    """Check that an optimizer can go on with a state: a hook that torch calls before it takes the state over.

    Args:
        optimizer: The optimizer, with its parameters.
        stored: The state of one with the same parameters in the same order.

    Returns:
        The moments and rates of the state; how a step is computed, such as ``fused``, is the optimizer's own affair.

    Raises:
        ValueError: If a rate is none, or a parameter's moments lack one or have another shape than it.
    """
    where = "The checkpoint's optimizer_states"
    groups, moments = stored.get("param_groups"), stored.get("state")
    if not isinstance(groups, list) or not isinstance(moments, dict):
        raise ValueError(f"{where} must hold a list param_groups and a dict state, got {shown(stored)}.")
    own = [{name: x for name, x in group.items() if not _is_option(x)} for group in optimizer.param_groups]
    check_form(groups, [{**rates, "params": [None] * len(rates["params"])} for rates in own], f"{where}: param_groups")
    parts = optimizer.parts if isinstance(optimizer, JoinedOptimizer) else (optimizer,)
    owners = [part for part in parts for _ in part.param_groups]
    kept, known = [], {}
    for group, mine, owner in zip(groups, optimizer.param_groups, owners, strict=True):
        rates = {name: group.get(name, x) for name, x in mine.items() if name != "params" and not _is_option(x)}
        # the constructor knows what rates there are
        type(owner)([torch.zeros(1, 1)], **{name: x for name, x in rates.items() if name in owner.defaults})
        kept.append({**mine, **rates, "params": group["params"]})
        for name, parameter in zip(group["params"], mine["params"], strict=True):
            if isinstance(name, int | str) and moments.get(name):
                expected = expected_state(owner, parameter)
                if expected is not None:
                    _check_moments(moments[name], expected, f"{where}: state[{shown(name)}]")
                known[name] = moments[name]
    return {**stored, "param_groups": kept, "state": known}


def _is_option(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _check_moments(stored: object, own: dict[str, Tensor], where: str) -> None:
    check_form(stored, own, where)
    assert isinstance(stored, dict), "check_form has seen to it"
    if lacking := [name for name in own if stored.get(name) is None]:
        raise ValueError(f"{where} lacks {', '.join(lacking)}.")
    if "step" in own and not 0 <= float(stored["step"]) <= LARGEST_WHOLE:
        raise ValueError(f"{where}.step must be a count, 0 or more, got {float(stored['step'])}.")


def check_start(module: Any, missing: str | None) -> None:
    """Refuse to run a module without the weights it was to start from, or with data that it was not built for.

    Args:
        module: A ``GAUAlphaModule`` about to run. Of its trainer's data module, if there is one, ``vocabulary`` and
            ``train_length`` are looked at, as far as it has them.
        missing: What ``init_from`` named; None if it was there, or a checkpoint has brought the weights.

    Raises:
        ValueError: If something is missing, the data's vocabulary is larger than the model's, or its rows are of
            another ``train_length``.
    """
    data, vocab_size, train_length = module.trainer.datamodule, module.model.config.vocab_size, module.train_length
    tokens = getattr(getattr(data, "vocabulary", None), "size", 0)
    if tokens > vocab_size:
        raise ValueError(
            f"The data's vocabulary has {tokens:,} tokens, but the model's config has vocab_size {vocab_size:,}: give "
            f"GAUAlphaConfig vocab_size={tokens} or more."
        )
    length = getattr(data, "train_length", train_length)
    if length != train_length:
        raise ValueError(
            f"The data has train_length {length}, but the module was built for {train_length}, which methods take for "
            f"the length of training: give both the same."
        )
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


def _check_same_optimizer(checkpoint: dict[str, Any], optimizer: OptimizerFactory) -> None:
    stored, own = _stored(checkpoint).get("optimizer"), optimizer.describe()["class_path"]
    named = stored.get("class_path") if isinstance(stored, dict) else stored
    # a file may name a class by a longer path
    if named is not None and str(named).rpartition(".")[2] != own.rpartition(".")[2]:
        raise ValueError(
            f"The checkpoint was trained by {shown(named)}, whose state is of no use to {own}: go on with the same "
            f"optimizer, or start a new run from its weights with --model.init_from."
        )


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
