"""Models as Hugging Face folders: ``config.json`` beside ``model.safetensors``, or ``pytorch_model.bin``."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.fields import (
    AUTO_MAP,
    REMOTE_CODE,
    all_fields,
    method_in,
    read_fields,
    sizes_in,
    train_length_in,
)
from gau_alpha.checkpoints.head_fields import HEAD_KEY, labels_in
from gau_alpha.checkpoints.tensors import (
    HEAD,
    HEAD_BIAS,
    WORDS,
    check_fit,
    check_sizes,
    read_tensors,
    weights_file,
    write_tensors,
)
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.untrusted.registry import shown

Model = TypeVar("Model", bound=nn.Module)
"""A model: its class is an argument, and nothing of it is imported here."""

CONFIG = "config.json"
"""The file of sizes and method in a Hugging Face folder."""

METHOD_PART = ".gau.method."
"""What the names of tensors contain that an attention method has learned."""


@dataclass(frozen=True)
class Stored:
    """What a folder holds.

    Attributes:
        config: Sizes and rates.
        method: The attention method.
        weights: The model's state dict, of the file's dtypes.
        train_length: Tokens per training row, if the folder says it.
        source: The file of the weights.
    """

    config: GAUAlphaConfig
    method: AttentionMethod
    weights: dict[str, Tensor]
    train_length: int | None
    source: Path


def read_folder(
    folder: str | PathLike[str], method: AttentionMethod | None = None, num_hidden_layers: int | None = None
) -> Stored:
    """Read a folder, without building its model.

    Args:
        folder: The folder.
        method: The attention method; default: the one that ``config.json`` names. If it names none, plain softmax with
            RoPE, and a warning.
        num_hidden_layers: Take the first so many layers of a deeper model; no others are read. Default: as many as
            ``config.json`` says.

    Raises:
        ValueError: If a file is missing or damaged, ``config.json`` has unknown or contradictory fields, or there are
            fewer layers than asked for.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} is no model folder: it has no {CONFIG}.")
    stored = read_fields(folder / CONFIG)
    source = weights_file(folder)
    named = method_in(stored) if method is None else method
    if named is None:
        warnings.warn(
            f"{folder / CONFIG} names no attention method (normalization is missing): plain softmax with RoPE is "
            f"assumed. Pass the method if it is another.",
            stacklevel=2,
        )
    said = stored.get("num_hidden_layers", GAUAlphaConfig.num_hidden_layers)
    wanted = said if num_hidden_layers is None else num_hidden_layers
    if not 1 <= wanted <= said:
        raise ValueError(f"num_hidden_layers is {wanted}, but {folder} holds {said} layers; ask for 1 to {said}.")
    weights, depth = read_tensors(source, wanted)
    check_sizes(replace(sizes_in(stored, tied=True), num_hidden_layers=wanted), weights, str(folder))
    if depth > said:
        warnings.warn(
            f"{source} holds {depth} layers and {CONFIG} says {said}: the first {said} are used.", stacklevel=2
        )
    differs = HEAD in weights and WORDS in weights and not torch.equal(weights[HEAD], weights[WORDS])
    config = replace(sizes_in(stored, tied=not differs), num_hidden_layers=wanted)
    if config.tie_word_embeddings:
        if differs:
            raise ValueError(
                "config.json says tie_word_embeddings, but the head's weights differ from the embeddings'."
            )
        if WORDS in weights:
            weights[HEAD] = weights[WORDS]
    if config.use_bias and HEAD_BIAS not in weights:
        dtype = weights[WORDS].dtype if WORDS in weights else None
        weights[HEAD_BIAS] = torch.zeros(config.vocab_size, dtype=dtype)  # the published head has none: the same
    return Stored(config, named or AttentionMethod(), weights, train_length_in(stored, named), source)


def folder_config(folder: str | PathLike[str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read what ``config.json`` says, and no weights.

    Args:
        folder: The folder.

    Returns:
        The fields of ``GAUAlphaConfig`` that it gives, and the attention method as plain data; None if it names none.

    Raises:
        ValueError: If it is missing, or has unknown or contradictory fields.
    """
    if not (Path(folder) / CONFIG).is_file():
        raise ValueError(f"{folder} is no model folder: it has no {CONFIG}.")
    stored = read_fields(Path(folder) / CONFIG)
    method = method_in(stored)
    sizes = {field.name: stored[field.name] for field in fields(GAUAlphaConfig) if field.name in stored}
    return sizes, None if method is None else method.describe()


def folder_head(folder: str | PathLike[str]) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Read what ``config.json`` says of a head that was written here: its class and arguments, and its labels.

    Args:
        folder: A folder that ``read_folder`` can read.

    Returns:
        None and no labels for a masked language model.

    Raises:
        ValueError: If the entry is no description of a head.
    """
    stored = read_fields(Path(folder) / CONFIG)
    head = stored.get(HEAD_KEY)
    if head is None:
        return None, ()
    if not isinstance(head, dict):
        raise ValueError(f"{folder}: {HEAD_KEY} in {CONFIG} must give a class_path and init_args, got {shown(head)}.")
    return head, labels_in(stored) or ()


def load_folder(
    cls: type[Model],
    folder: str | PathLike[str],
    method: AttentionMethod | None = None,
    num_hidden_layers: int | None = None,
) -> Model:
    """Load a model from a folder, in evaluation mode and float32.

    Args:
        cls: The model class.
        folder: The folder.
        method: The attention method; default: the one that ``config.json`` names.
        num_hidden_layers: Take the first so many layers of a deeper model. Default: all.

    Raises:
        ValueError: If the folder can't be read (see ``read_folder``), or the weights do not fit its config.
    """
    stored = read_folder(folder, method, num_hidden_layers)
    build: Any = cls  # every model takes config and method first
    with empty_init():  # the file's tensors become the parameters
        model = build(stored.config, stored.method)
    check_fit(model, stored.weights, str(folder))
    assign_weights(model, stored.weights, stored.method)
    model.train_length = stored.train_length
    model.tie()
    return model.eval()


def assign_weights(model: Any, weights: dict[str, Tensor], method: AttentionMethod) -> None:
    """Let tensors become the parameters of a model that was built unfilled, in float32.

    Args:
        model: The model.
        weights: What was checked to fit it; a head's weights may be missing.
        method: Its attention method.
    """
    owners = dict(model.named_modules())
    learned = {}
    for name, tensor in weights.items():
        owner, _, leaf = name.rpartition(".")
        if METHOD_PART in name:
            learned[name] = tensor
        else:  # what load_state_dict(assign=True) does in three times the time
            setattr(owners[owner], leaf, nn.Parameter(tensor.float()))
    # Strategies may hold tensors that are no weights, so no file fills them: made anew, on a real device.
    model.set_method(method)
    if learned:
        model.load_state_dict(learned, strict=False)


def write_folder(
    folder: str | PathLike[str],
    config: GAUAlphaConfig,
    method: AttentionMethod,
    weights: dict[str, Tensor],
    train_length: int | None = None,
    pad_token_id: int | None = None,
    head: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write ``model.safetensors``, ``config.json`` and ``modeling_gau_alpha.py``; each appears whole or not at all.

    Args:
        folder: The folder.
        config: Sizes and rates.
        method: The attention method.
        weights: The model's state dict, stored as it is.
        train_length: Tokens per training row, if known.
        pad_token_id: The id that fills rows, if known.
        head: A head's class and its own arguments; None: the masked-language-model head.
        labels: What the head chooses from.
    """
    folder = Path(folder)
    text = json.dumps(all_fields(config, method, train_length, pad_token_id, head, labels), indent=2) + "\n"
    write_tensors(folder, weights, config.tie_word_embeddings)
    write_remote_code(folder)
    write_atomic(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))


def write_remote_code(folder: Path) -> None:
    """Write the file by which ``transformers`` finds our classes, with ``trust_remote_code=True``.

    Args:
        folder: The folder.
    """
    names = ",\n    ".join(sorted(path.partition(".")[2] for path in AUTO_MAP.values()))
    text = (
        "# transformers reads this with trust_remote_code=True. The model is the package gau_alpha, which has to be\n"
        "# installed; after `import gau_alpha.checkpoints.transformers` this file is not needed.\n"
        f"from gau_alpha.checkpoints.transformers import (  # noqa: F401\n    {names},\n)\n"
    )
    write_atomic(folder / f"{REMOTE_CODE}.py", lambda path: path.write_text(text, encoding="utf-8"))


def save_folder(
    model: Any,
    folder: str | PathLike[str],
    head: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write a model as ``config.json`` and ``model.safetensors``; see ``write_folder``.

    Args:
        model: The model.
        folder: The folder.
        head: A head's class and its own arguments; None: the masked-language-model head.
        labels: What the head chooses from.
    """
    write_folder(folder, model.config, model.method, model.state_dict(), head=head, labels=labels)


@contextmanager
def empty_init() -> Iterator[None]:
    """Build models in this ``with`` block without allocating weights or drawing them at random."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves parameters undrawn; to draw on the meta device costs more than to read the weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
