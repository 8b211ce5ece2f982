"""Starting a model from the weights of another."""

import warnings
from collections.abc import Iterable
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gau_alpha.checkpoints.fields import read_fields
from gau_alpha.checkpoints.folders import CONFIG, METHOD_PART, read_folder
from gau_alpha.checkpoints.head_fields import head_class_in, labels_in
from gau_alpha.checkpoints.tensors import HEAD, check_fit
from gau_alpha.checkpoints.training import MODELS, read_checkpoint, weights_of
from gau_alpha.config import SHAPING, GAUAlphaConfig

ENCODER = "gau_alpha."
"""What the names of all tensors below a head begin with."""


class Start(NamedTuple):
    """What there is to start from.

    Attributes:
        config: Sizes and rates.
        weights: The model's state dict.
        head: Name of the model's class, if known.
        labels: What its head chooses from, if known.
    """

    config: GAUAlphaConfig
    weights: dict[str, Tensor]
    head: str | None
    labels: tuple[str, ...] | None


def warm_start(model: Any, source: str | PathLike[str]) -> None:
    """Start a model from the weights of another: a folder, or a Lightning checkpoint.

    The other may be deeper; its first layers are taken. The attention method stays the model's own. What the method
    learns is taken over where the other learned the same, and else starts as new, with a warning.

    Args:
        model: The model to start; on the CPU.
        source: The folder or checkpoint.

    Raises:
        ValueError: If the source can't be read, or its sizes differ; the message names them.
    """
    start = _read(Path(source), model)
    _check_sizes(model, start, str(source), SHAPING)
    _take(model, start.weights, str(source), head_is_new=False)


def warm_start_with_head(model: Any, source: str | PathLike[str]) -> None:
    """Start a model with a head from another: one with the same head and labels, or any with the same encoder.

    As ``warm_start``; but a head that the other does not have, or has for other labels, stays as it was drawn, and a
    warning names its tensors.

    Args:
        model: The model to start; on the CPU.
        source: The folder or checkpoint.

    Raises:
        ValueError: If the source can't be read, or its sizes differ; the message names them.
    """
    start = _read(Path(source), model)
    # which head shares the embeddings' weight is no concern of another head
    _check_sizes(model, start, str(source), [name for name in SHAPING if name != "tie_word_embeddings"])
    heads = {name for name in start.weights if not name.startswith(ENCODER)}
    if start.config.tie_word_embeddings:
        heads.discard(HEAD)  # the embeddings once more
    expected = {name for name in model.state_dict() if not name.startswith(ENCODER)}
    same = start.head in (None, type(model).__name__) and start.labels in (None, model.labels)
    is_new = not (same and expected <= heads)
    unused = heads if is_new else heads - expected
    if is_new:
        warnings.warn(
            f"{source} has no head for this task: {', '.join(sorted(expected))} start as new, drawn at random"
            + (f"; {', '.join(sorted(unused))} are not used." if unused else "."),
            stacklevel=2,
        )
    weights = {name: tensor for name, tensor in start.weights.items() if name not in unused and name != HEAD}
    _take(model, weights, str(source), head_is_new=is_new)


def _read(path: Path, model: Any) -> Start:
    if path.is_dir():
        stored = read_folder(path, model.method, model.config.num_hidden_layers)
        fields = read_fields(path / CONFIG)
        return Start(stored.config, stored.weights, head_class_in(fields), labels_in(fields))
    checkpoint = read_checkpoint(path)
    arguments = checkpoint["hyper_parameters"]
    config = MODELS.describe(GAUAlphaConfig, arguments["config"], f"{path}: hyper_parameters.config").build()
    head, labels = arguments.get("head"), arguments.get("labels")
    named = head.get("class_path") if isinstance(head, dict) else None
    return Start(
        config,
        weights_of(checkpoint),
        named.rpartition(".")[2] if isinstance(named, str) else None,
        tuple(map(str, labels)) if isinstance(labels, list | tuple) else None,
    )


def _check_sizes(model: Any, start: Start, source: str, names: Iterable[str]) -> None:
    own, other = asdict(model.config), asdict(start.config)
    differing = [
        f"{name} is {other[name]} there and {own[name]} here"
        for name in names
        if (own[name] > other[name] if name == "num_hidden_layers" else own[name] != other[name])
    ]
    if differing:
        raise ValueError(f"The model can't start from {source}: {'; '.join(differing)}. Set model.config to its sizes.")


def _take(model: Any, weights: dict[str, Tensor], source: str, head_is_new: bool) -> None:
    expected = model.state_dict()
    layers = tuple(f"gau_alpha.encoder.layer.{layer}." for layer in range(model.config.num_hidden_layers))
    weights = {name: tensor for name, tensor in weights.items() if ".layer." not in name or name.startswith(layers)}
    new = sorted(name for name in expected.keys() - weights.keys() if METHOD_PART in name)
    unused = sorted(name for name in weights.keys() - expected.keys() if METHOD_PART in name)
    if new or unused:
        warnings.warn(
            f"{source} was trained with another attention method: {len(new)} of the method's tensors start as new, "
            f"{len(unused)} are not used.",
            stacklevel=3,
        )
    if head_is_new:
        new += [name for name in expected if not name.startswith(ENCODER)]
    weights = {name: tensor for name, tensor in weights.items() if name not in unused}
    weights |= {name: expected[name] for name in new}
    check_fit(model, weights, source)
    model.load_state_dict(weights)
