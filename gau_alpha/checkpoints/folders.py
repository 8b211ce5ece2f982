"""Models as Hugging Face folders: ``config.json`` beside ``model.safetensors``, or ``pytorch_model.bin``."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gau_alpha.checkpoints.fields import all_fields, method_in, read_fields, sizes_in, train_length_in
from gau_alpha.checkpoints.tensors import HEAD, HEAD_BIAS, WORDS, check_fit, read_tensors, weights_file, write_tensors
from gau_alpha.checkpoints.training import model_of, read_checkpoint
from gau_alpha.config import SHAPING, GAUAlphaConfig
from gau_alpha.files import write_whole
from gau_alpha.method import AttentionMethod

if TYPE_CHECKING:
    from gau_alpha.model import GAUAlphaForMaskedLM

Model = TypeVar("Model", bound="GAUAlphaForMaskedLM")

CONFIG = "config.json"

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
    with unfilled():  # the file's tensors become the parameters
        model = cls(stored.config, stored.method)
    check_fit(model, stored.weights, str(folder))
    weights = {name: tensor.float() for name, tensor in stored.weights.items()}
    model.load_state_dict(weights, assign=True)
    model.tie()
    # Strategies may hold tensors that are no weights, so no file fills them: made anew, on a real device.
    model.set_method(stored.method)
    if learned := {name: tensor for name, tensor in weights.items() if METHOD_PART in name}:
        model.load_state_dict(learned, strict=False)
    return model.eval()


def write_folder(
    folder: str | PathLike[str],
    config: GAUAlphaConfig,
    method: AttentionMethod,
    weights: dict[str, Tensor],
    train_length: int | None = None,
    pad_token_id: int | None = None,
) -> None:
    """Write ``model.safetensors`` and ``config.json``; each file appears whole or not at all.

    Args:
        folder: The folder.
        config: Sizes and rates.
        method: The attention method.
        weights: The model's state dict, stored as it is.
        train_length: Tokens per training row, if known.
        pad_token_id: The id that fills rows, if known.
    """
    folder = Path(folder)
    text = json.dumps(all_fields(config, method, train_length, pad_token_id), indent=2) + "\n"
    write_tensors(folder, weights, config.tie_word_embeddings)
    write_whole(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))


def save_folder(model: "GAUAlphaForMaskedLM", folder: str | PathLike[str]) -> None:
    """Write a model as ``config.json`` and ``model.safetensors``."""
    write_folder(folder, model.config, model.method, model.state_dict())


@contextmanager
def unfilled() -> Iterator[None]:
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


def initialise(model: "GAUAlphaForMaskedLM", source: str | PathLike[str]) -> None:
    """Start a model from the weights of another: a folder, or a Lightning checkpoint.

    The other may be deeper; its first layers are taken. The attention method stays the model's own. What the method
    learns is taken over where the other learned the same, and else starts as new, with a warning.

    Args:
        model: The model to start; on the CPU.
        source: The folder or checkpoint.

    Raises:
        ValueError: If the source can't be read, or its sizes differ; the message names them.
    """
    path = Path(source)
    if path.is_dir():
        stored = read_folder(path, model.method, model.config.num_hidden_layers)
        config, weights = stored.config, stored.weights
    else:
        config, _, weights = model_of(read_checkpoint(path))
    own = asdict(model.config)
    differing = [
        f"{name} is {value} there and {own[name]} here"
        for name, value in asdict(config).items()
        if name in SHAPING and (own[name] > value if name == "num_hidden_layers" else own[name] != value)
    ]
    if differing:
        raise ValueError(f"The model can't start from {path}: {'; '.join(differing)}. Set model.config to its sizes.")
    expected = model.state_dict()
    layers = tuple(f"gau_alpha.encoder.layer.{layer}." for layer in range(model.config.num_hidden_layers))
    weights = {name: tensor for name, tensor in weights.items() if ".layer." not in name or name.startswith(layers)}
    new = sorted(name for name in expected.keys() - weights.keys() if METHOD_PART in name)
    unused = sorted(name for name in weights.keys() - expected.keys() if METHOD_PART in name)
    if new or unused:
        warnings.warn(
            f"{path} was trained with another attention method: {len(new)} of the method's tensors start as new, "
            f"{len(unused)} are not used.",
            stacklevel=2,
        )
    weights = {name: tensor for name, tensor in weights.items() if name not in unused}
    weights |= {name: expected[name] for name in new}
    check_fit(model, weights, str(path))
    model.load_state_dict(weights)
