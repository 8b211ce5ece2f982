"""Models in files: Hugging Face folders and Lightning checkpoints. Everything is read as data; nothing is executed."""

import json
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gau_alpha.config import GAUAlphaConfig
from gau_alpha.files import write_whole
from gau_alpha.method import AttentionMethod
from gau_alpha.presets import method_from

if TYPE_CHECKING:
    from gau_alpha.model import GAUAlphaForMaskedLM

Model = TypeVar("Model", bound="GAUAlphaForMaskedLM")

METHOD_KEY = "attention_method"
"""The entry of ``config.json`` that describes the attention method."""

HEAD = "cls.predictions.decoder.weight"
WORDS = "gau_alpha.embeddings.word_embeddings.weight"


def load_folder(cls: type[Model], folder: str | PathLike[str], method: AttentionMethod | None = None) -> Model:
    """Load a model from a folder with ``config.json`` and ``model.safetensors``, in evaluation mode.

    Args:
        cls: The model class.
        folder: The folder.
        method: The attention method; default: the one that ``config.json`` describes, else plain softmax with RoPE.

    Raises:
        ValueError: If a file is missing or damaged, or the weights do not fit the config.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is no model folder: it has no {name}.")
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        weights = load_file(folder / "model.safetensors")
    except Exception as error:  # the library raises its own kind, not exported under a stable name
        raise ValueError(f"{folder / 'model.safetensors'} cannot be read: {error}") from error
    config = _read_config(stored, weights)
    if method is None:
        method = method_from(stored.get(METHOD_KEY, {}))
    model = cls(config, method)
    load_weights(model, weights, str(folder))
    return model.eval()


def save_folder(model: "GAUAlphaForMaskedLM", folder: str | PathLike[str]) -> None:
    """Write a model as ``config.json`` and ``model.safetensors``; each file appears whole or not at all."""
    folder = Path(folder)
    stored = {"model_type": "gau_alpha", **asdict(model.config), METHOD_KEY: model.method.describe()}
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del weights[HEAD]  # safetensors stores no tensor twice
    write_whole(
        folder / "config.json", lambda path: path.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    )
    write_whole(folder / "model.safetensors", lambda path: save_file(weights, path, metadata={"format": "pt"}))


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict that has to fit exactly.

    Args:
        model: The model.
        weights: Its state dict.
        source: Where the weights come from, for the message.

    Raises:
        ValueError: If tensors are missing, left over or of another shape; the message names them.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shapes = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    if missing or extra or shapes:
        parts = [f"missing: {_some(missing)}"] if missing else []
        parts += [f"left over: {_some(extra)}"] if extra else []
        parts += [f"of another shape: {_some(shapes)}"] if shapes else []
        raise ValueError(f"The weights in {source} do not fit the model; {'; '.join(parts)}.")
    model.load_state_dict(weights)


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
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint that can be read as plain data: {reason}") from error
    parts = ("state_dict", "hyper_parameters")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(part), dict) for part in parts):
        raise ValueError(f"{path} is not a checkpoint of a GAUAlphaModule: it lacks {' or '.join(parts)}.")
    lacking = {"config", "train_length", "method"} - checkpoint["hyper_parameters"].keys()
    if lacking:
        raise ValueError(f"{path} is not a checkpoint of a GAUAlphaModule: it lacks {', '.join(sorted(lacking))}.")
    return checkpoint


def _read_config(stored: dict[str, Any], weights: dict[str, Tensor]) -> GAUAlphaConfig:
    known = {field.name for field in fields(GAUAlphaConfig)}
    values = {name: value for name, value in stored.items() if name in known}
    if "vocab_size" not in values:
        raise ValueError("config.json lacks vocab_size.")
    differs = HEAD in weights and WORDS in weights and not torch.equal(weights[HEAD], weights[WORDS])
    tied = values.setdefault("tie_word_embeddings", not differs)
    if tied and differs:
        raise ValueError("config.json says tie_word_embeddings, but the head's weights differ from the embeddings'.")
    if tied and WORDS in weights:
        weights[HEAD] = weights[WORDS]
    return GAUAlphaConfig(**values)


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
