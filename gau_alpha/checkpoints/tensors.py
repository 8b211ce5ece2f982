"""Files of weights: ``model.safetensors``, or ``pytorch_model.bin`` read as plain data."""

import re
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.checksum import find_corruption
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.untrusted.escaping import printable
from gau_alpha.untrusted.registry import shown

WEIGHTS = "model.safetensors"
"""The file of weights that is written, and read if it is there."""

PICKLED = "pytorch_model.bin"
"""The older file of weights; it is read as data alone."""

WORDS = "gau_alpha.embeddings.word_embeddings.weight"
"""The name of the word embeddings, (V, H)."""

HEAD = "cls.predictions.decoder.weight"
"""The name of the masked-language-model head's weight, (V, H); the embeddings again where tied."""

HEAD_BIAS = "cls.predictions.decoder.bias"
"""The name of that head's bias, (V,)."""

PUBLISHED_BIAS = "cls.predictions.bias"
"""Where BERT-like models keep the head's bias; the published GAU-α head has none."""

_PLAIN = (float, complex, str, bytes, torch.dtype, torch.device)
_DEEPEST = 64
_MOST_VALUES = 5_000_000

_LAYER = re.compile(r"gau_alpha\.encoder\.layer\.(\d+)\.")


def load_plain(path: Path, mmap: bool = False) -> Any:
    """Read what ``torch.save`` wrote, if it is nothing but numbers, strings, containers and tensors.

    Args:
        path: The file.
        mmap: Whether tensors stay in the file until they are used, where its format allows that.

    Raises:
        ValueError: If it is damaged or holds anything else, which is named; nothing of it is run.
    """
    _check_archive(path)
    if fault := find_corruption(path):
        raise ValueError(f"{path} is damaged: {fault}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except (
        UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as error:
        # torch's own message explains how to run the file after all
        foreign = re.findall(r"GLOBAL ([\w.]+)|Unsupported (?:global|class|operand) ([\w.]+)", str(error))
        if named := sorted({name for pair in foreign for name in pair if name and name != "GLOBAL"}):
            reason = f"it holds {', '.join(named)}, which no weights need; nothing of it was run"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint that can be read as plain data: {printable(reason)}.") from error
    check_plain(content, str(path), path.stat().st_size)
    return content


def _check_archive(path: Path) -> None:
    """Refuse an archive that would take more memory, or time to be looked through, than it has bytes."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(record.file_size for record in archive.infolist())
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError):
        return  # damaged, which is said elsewhere
    if size > path.stat().st_size:
        raise ValueError(f"{path} is compressed, or its records overlap, as torch writes no file: save it again.")


def check_plain(content: object, where: str, size: int) -> None:
    """Check what was unpickled: no cycle, no tower of containers, no tensor or number larger than the file.

    Args:
        content: Numbers, strings, containers and tensors.
        where: The file, for messages.
        size: Its bytes.

    Raises:
        ValueError: If there is such a thing.
    """
    left, num_values = [(content, 0)], 0
    storages: set[int] = set()  # addresses
    while left:
        value, depth = left.pop()
        num_values += 1
        if depth > _DEEPEST or num_values > _MOST_VALUES:
            raise ValueError(f"{where} holds containers within themselves, or within more than {_DEEPEST} others.")
        if isinstance(value, dict):
            # torch keeps versions in one attribute of a state dict; others would hide the methods
            if more := getattr(value, "__dict__", {}).keys() - {"_metadata"}:
                raise ValueError(f"{where} holds a dict with the attribute {shown(min(map(str, more)))}.")
            left += [(one, depth + 1) for pair in value.items() for one in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            left += [(one, depth + 1) for one in value]
        elif isinstance(value, Tensor):
            shape = tuple(value.shape) if not value.is_nested else ()
            if value.device.type != "cpu" or value.layout is not torch.strided or value.is_quantized or value.is_nested:
                raise ValueError(f"{where} holds a tensor of shape {shape} that is not one of plain numbers.")
            storage = value.untyped_storage()
            size -= 0 if storage.data_ptr() in storages else storage.nbytes()
            storages.add(storage.data_ptr())
            # a tensor need not be made of what the file holds
            if value.numel() * value.element_size() > storage.nbytes() or size < 0:
                raise ValueError(f"{where} holds a tensor of shape {shape} and fewer numbers than that.")
        elif isinstance(value, int):
            if abs(value) >= 1 << 64:
                raise ValueError(f"{where} holds {shown(value)}; 64 bits are the most.")
        elif value is not None and not isinstance(value, _PLAIN):
            raise ValueError(f"{where} holds a {type(value).__name__}, which is no plain data.")


def check_sizes(config: GAUAlphaConfig, weights: Mapping[str, Tensor], where: str) -> None:
    """Check, before memory is taken, that a model is not far larger than the file that is to fill it.

    ``check_fit`` then names each tensor that is missing.

    Args:
        config: What the file says of the model.
        weights: What it holds.
        where: The file, for messages.

    Raises:
        ValueError: If the model has more than four times as many weights, and a million, as the file.
    """
    layer = config.hidden_size * (3 * config.intermediate_size + config.attention_key_size)
    embeddings = config.hidden_size * (config.vocab_size + config.type_vocab_size)
    needed = embeddings + config.num_hidden_layers * layer
    held = sum(tensor.numel() for tensor in weights.values())
    if needed > 4 * held + 1_000_000:
        raise ValueError(
            f"{where} holds {held} weights, but the model that it describes ({_sizes(config)}) has {shown(needed)}."
        )


def _sizes(config: GAUAlphaConfig) -> str:
    names = ("vocab_size", "hidden_size", "intermediate_size", "attention_key_size", "num_hidden_layers")
    return ", ".join(f"{name} {shown(getattr(config, name))}" for name in names)


def weights_file(folder: Path) -> Path:
    """Find a folder's weights.

    Raises:
        ValueError: If there are none, or only in several pieces.
    """
    for name in (WEIGHTS, PICKLED):
        if (folder / name).is_file():
            return folder / name
    if pieces := sorted(path.name for path in folder.glob("*.index.json")):
        raise ValueError(f"{folder} holds weights in several pieces ({pieces[0]}); put them together in {WEIGHTS}.")
    raise ValueError(f"{folder} is no model folder: it has no {WEIGHTS} and no {PICKLED}.")


def read_tensors(path: Path, num_layers: int | None = None) -> tuple[dict[str, Tensor], int]:
    """Read a file of weights, under the names that the model has for them.

    Args:
        path: What ``weights_file`` returned.
        num_layers: Read only so many layers from the first; None: all.

    Returns:
        The tensors, and the number of layers that the file holds.

    Raises:
        ValueError: If the file can't be read as plain data.
    """
    with ExitStack() as stack:
        if path.name == PICKLED:
            content = load_plain(path, mmap=True)
            if not isinstance(content, dict) or not all(
                isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
            ):
                raise ValueError(f"{path} holds something other than named tensors.")
            names, read = list(content), content.__getitem__
        else:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except Exception as error:  # the library raises its own kind, not exported under a stable name
                raise ValueError(f"{path} cannot be read: {printable(str(error))}") from error
            names, read = list(file.keys()), file.get_tensor
        layers = {name: int(found[1]) for name in names if (found := _LAYER.match(name))}
        depth = max(layers.values(), default=-1) + 1
        wanted = depth if num_layers is None else num_layers
        weights = {name: read(name) for name in names if layers.get(name, -1) < wanted}
    if PUBLISHED_BIAS in weights:
        bias = weights.pop(PUBLISHED_BIAS)
        if not torch.equal(weights.setdefault(HEAD_BIAS, bias), bias):
            raise ValueError(f"{path} contradicts itself: {PUBLISHED_BIAS} and {HEAD_BIAS} differ.")
    return weights, depth


def write_tensors(folder: Path, weights: dict[str, Tensor], tied: bool) -> None:
    """Write ``model.safetensors``, whole or not at all.

    Args:
        folder: The folder.
        weights: A model's state dict.
        tied: Whether the head shares its weight with the embeddings: it is then stored once.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if tied:
        stored.pop(HEAD, None)  # safetensors stores no tensor twice
    bias = stored.pop(HEAD_BIAS, None)
    # The published head has no bias. One of zeros is the same head, and reading puts it back.
    if bias is not None and bias.view(torch.uint8).any():
        stored[PUBLISHED_BIAS] = bias
    write_atomic(folder / WEIGHTS, lambda path: save_file(stored, path, metadata={"format": "pt"}))


def check_fit(model: torch.nn.Module, weights: dict[str, Tensor], source: str, advice: str = "") -> None:
    """Check that a state dict fits a model exactly.

    Args:
        model: The model.
        weights: The state dict.
        source: Where the weights come from, for the message.
        advice: What to do, for the message.

    Raises:
        ValueError: If tensors are missing, left over or of another shape; the message names them.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(map(printable, weights.keys() - own.keys()))
    shapes = [
        f"{name}: {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape
    ]
    if missing or extra or shapes:
        parts = [f"missing: {_some(missing)}"] if missing else []
        parts += [f"left over: {_some(extra)}"] if extra else []
        parts += [f"of another shape: {_some(shapes)}"] if shapes else []
        raise ValueError(f"The weights in {source} do not fit the model; {'; '.join(parts)}.{advice}")


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Load a state dict that has to fit exactly.

    Args:
        model: The model.
        weights: Its state dict.
        source: Where the weights come from, for the message.

    Raises:
        ValueError: If tensors are missing, left over or of another shape; the message names them.
    """
    check_fit(model, weights, source)
    model.load_state_dict(weights)


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
