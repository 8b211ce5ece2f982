"""Models with heads for fine-tuning, in Hugging Face folders."""

import inspect
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import METHODS
from gau_alpha.checkpoints.fields import read_fields
from gau_alpha.checkpoints.folders import CONFIG, assign_weights, empty_init, read_folder
from gau_alpha.checkpoints.head_fields import HEAD_KEY, head_arguments_in, head_class_in, labels_in
from gau_alpha.checkpoints.tensors import HEAD, check_fit
from gau_alpha.checkpoints.warm_start import ENCODER
from gau_alpha.untrusted.registry import built

if TYPE_CHECKING:
    from gau_alpha.finetuning import HeadedModel

Model = TypeVar("Model", bound="HeadedModel")

MASKED_LM_HEAD = "cls."
"""What the names of the masked-language-model head's tensors begin with."""


def load_headed(
    cls: type[Model],
    folder: str | PathLike[str],
    method: AttentionMethod | None = None,
    num_hidden_layers: int | None = None,
    labels: Sequence[str] | None = None,
    own_arguments: dict[str, Any] | None = None,
) -> Model:
    """Load a model with a head from a folder, in evaluation mode and float32.

    Where the folder has no weights for a head, the head is drawn at random, and a warning names it.

    Args:
        cls: The model class.
        folder: The folder.
        method: The attention method; default: the one that ``config.json`` names.
        num_hidden_layers: Take the first so many layers of a deeper model. Default: all.
        labels: What there is to choose from; default: what ``config.json`` says.
        own_arguments: The head's own; default: what ``config.json`` says, where it says it.

    Raises:
        ValueError: If the folder can't be read, holds another head, or the weights or labels do not fit.
    """
    fields = read_fields(Path(folder) / CONFIG) if (Path(folder) / CONFIG).is_file() else {}
    stored = read_folder(folder, method, num_hidden_layers)
    weights = {name: tensor for name, tensor in stored.weights.items() if not name.startswith(MASKED_LM_HEAD)}
    trained = {name: tensor for name, tensor in weights.items() if not name.startswith(ENCODER)}
    if trained and head_class_in(fields) not in (None, cls.__name__):
        raise ValueError(f"{folder} holds a {head_class_in(fields)}, not a {cls.__name__}: open it with that class.")
    chosen = _labels(cls, folder, labels, labels_in(fields), trained)
    said = head_arguments_in(fields, cls.own_arguments)
    given = list(inspect.signature(cls).parameters)[:4]  # config, method, kernel and labels are not the head's own
    said = built(METHODS.arguments(cls, said, f"{folder}: {HEAD_KEY}", given))
    arguments = {**said, **(own_arguments or {})}
    with empty_init():  # the file's tensors become the parameters
        model = cls(stored.config, stored.method, labels=chosen, **arguments)
    head = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(ENCODER)}
    check_fit(model, weights if trained else {**weights, **head}, str(folder))
    if not trained:
        _draw(model, list(head))
        unused = stored.weights.keys() - weights.keys()
        if stored.config.tie_word_embeddings:
            unused -= {HEAD}  # the embeddings once more
        warnings.warn(
            f"{folder} has no head for this task: {', '.join(sorted(head))} start as new, drawn at random"
            + (f"; {', '.join(sorted(unused))} are not used." if unused else "."),
            stacklevel=3,
        )
    assign_weights(model, weights, stored.method)
    model.train_length = stored.train_length
    return model.eval()


def _labels(
    cls: type[Model],
    folder: str | PathLike[str],
    asked: Sequence[str] | None,
    named: tuple[str, ...] | None,
    head: dict[str, Tensor],
) -> tuple[str, ...]:
    if not cls.has_labels:
        return tuple(asked or ())
    if not head:
        return tuple(asked or named or ())
    if named is None:  # as transformers calls labels that nobody named
        outputs = head["classifier.weight"].shape[0] if "classifier.weight" in head else 0
        named = tuple(f"LABEL_{number}" for number in range(outputs))
        if asked is not None and len(asked) == outputs:
            return tuple(asked)
    if asked is not None and tuple(asked) != named:
        raise ValueError(f"The head in {folder} was trained to choose from {list(named)}, not from {list(asked)}.")
    return named


def _draw(model: "HeadedModel", names: list[str]) -> None:
    """Give parameters of a model that was built unfilled memory, and draw them."""
    owners: dict[str, nn.Module] = {}
    for name in names:
        owner, _, leaf = name.rpartition(".")
        owners[owner] = model.get_submodule(owner)
        setattr(owners[owner], leaf, nn.Parameter(torch.empty_like(getattr(owners[owner], leaf), device="cpu")))
    for module in owners.values():
        model._init_weights(module)
