"""``gau-alpha convert``: Lightning checkpoints to Hugging Face folders, and back, bit for bit.

A Hugging Face folder has no place for the state of optimizer, schedule and data order. They go into a file of our own
beside it, ``training_state.ckpt``, so that a run can go on after a round trip as if nothing had happened;
``--weights_only`` leaves it out, which is how to publish a model. A checkpoint made from a folder without it can be
evaluated, and training can start from it (``fit --model.init_from``), but not go on.
"""

import argparse
import hashlib
import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from datamodules import TokenizerFile
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.checkpoints import (
    CARD,
    HEAD,
    MODEL_PREFIX,
    WEIGHTS,
    check_fit,
    empty_init,
    fast_tokenizer_files,
    folder_head,
    model_card,
    model_of,
    read_checkpoint,
    read_folder,
    read_training_state,
    tokenizer_files,
    tokenizer_files_in,
    write_folder,
)
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.checkpoints.identity import RUN_KEY, SPLITS_KEY, TRAINING_DATA
from gau_alpha.cli.splits import started_from, training_data
from gau_alpha.cli.stored_data import data_of
from gau_alpha.cli.stored_tokenizer import tokenizer_of
from gau_alpha.config import GAUAlphaConfig
from gau_alpha.finetuning.module import GAUAlphaFineTuning, build_head
from gau_alpha.model import GAUAlphaForMaskedLM, GAUAlphaModel
from gau_alpha.training.module import GAUAlphaModule
from gau_alpha.untrusted.escaping import printable

STATE = "training_state.ckpt"
"""All of a Lightning checkpoint but the model's weights."""

SHA256 = "weights_sha256"
"""The entry of ``training_state.ckpt`` that says which weights it goes with."""


def convert(args: list[str]) -> int:
    """Convert a model.

    Args:
        args: The command's arguments.

    Returns:
        The exit code.

    Raises:
        ValueError: If the source can't be read, or the destination can't be written.
    """
    parser = argparse.ArgumentParser(
        prog="gau-alpha convert",
        description="Turn a Lightning checkpoint into a Hugging Face folder, or such a folder into a checkpoint. "
        f"Weights stay equal bit for bit. The folder gets {STATE} (optimizer, schedule, position in the data), with "
        "which the way back gives a checkpoint that training goes on from.",
    )
    parser.add_argument("source", metavar="SRC", type=Path, help="a checkpoint (.ckpt), or a folder with config.json")
    parser.add_argument("destination", metavar="DST", type=Path, help="a folder, or a file that ends in .ckpt")
    parser.add_argument("--weights_only", action="store_true", help=f"write, or read, no {STATE}")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at DST")
    parser.add_argument("--license", default="unknown", help="for the model card: an identifier such as apache-2.0")
    parser.add_argument("--train_length", type=int, help="tokens per training row, for a folder that does not say it")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.json; default: the one that the checkpoint carries")
    options = parser.parse_args(args)
    source, destination = options.source, options.destination
    if options.train_length is not None and options.train_length < 1:
        raise ValueError(f"--train_length is {options.train_length}; give a number of tokens, 1 or more.")
    if options.tokenizer is not None and source.is_dir():
        raise ValueError("--tokenizer is for checkpoints: it goes into the folder that is written.")
    if source.is_dir():
        _check_destination(destination, options.overwrite, is_file=True)
        to_checkpoint(source, destination, options.train_length, options.weights_only)
    elif options.train_length is not None:
        raise ValueError("--train_length is for folders; a checkpoint knows its own.")
    else:
        checkpoint = read_checkpoint(source)
        _check_destination(destination, options.overwrite, is_file=False)
        to_folder(checkpoint, source, destination, options.license, options.weights_only, options.tokenizer)
    print(printable(f"{source} → {destination}"))
    return 0


def to_folder(
    checkpoint: dict[str, Any],
    source: Path,
    folder: Path,
    licence: str,
    weights_only: bool,
    tokenizer: Path | None = None,
) -> None:
    """Write a checkpoint as a Hugging Face folder.

    Args:
        checkpoint: What ``read_checkpoint`` returned.
        source: Where it was read. What an ``extrapolation.json`` beside it, or in its run's folder, says of this very
            checkpoint goes into the card.
        folder: Where to write.
        licence: For the model card.
        weights_only: Whether to leave the training state out.
        tokenizer: A tokenizer.json for the folder; default: the tokenizer that the checkpoint carries.

    Raises:
        ValueError: If the weights do not fit the checkpoint's own config, or it names a class that is none of ours and
            not trusted.
    """
    config, method, weights = model_of(checkpoint, str(source))
    arguments = checkpoint["hyper_parameters"]
    kind = GAUAlphaFineTuning if "head" in arguments else GAUAlphaModule
    described = kind.stored_arguments(arguments, str(source))
    train_length, labels = described["train_length"], described.get("labels", ())
    head = described["head"].as_dict() if "head" in described else None
    data = data_of(checkpoint, str(source))
    check_fit(_skeleton(config, method, head, labels, f"{source}: head"), weights, str(source))
    results = (place / "extrapolation.json" for place in (source.parent, source.resolve().parent.parent))
    card = model_card(
        folder.resolve().name,
        config,
        method,
        train_length,
        licence,
        {} if data is None else data.as_dict(),
        next((path for path in results if path.is_file()), None),
        head,
        _sha256(source),
    )
    pad_id, files = _tokenizer(checkpoint, source, tokenizer)
    (folder / STATE).unlink(missing_ok=True)  # of what was there before: it would not go with these weights
    write_folder(folder, config, method, weights, train_length, pad_id, head, labels)
    said = json.dumps(training_data(checkpoint, str(source)), indent=2) + "\n"
    for name, text in {**fast_tokenizer_files(files), CARD: card, TRAINING_DATA: said}.items():
        write_atomic(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))  # type: ignore[misc]
    if not weights_only:
        others = {name: x for name, x in checkpoint["state_dict"].items() if not name.startswith(MODEL_PREFIX)}
        state = {**checkpoint, "state_dict": others, SHA256: _sha256(folder / WEIGHTS)}
        write_atomic(folder / STATE, lambda path: torch.save(state, path))


def to_checkpoint(folder: Path, path: Path, train_length: int | None, weights_only: bool) -> None:
    """Write a Hugging Face folder as a Lightning checkpoint.

    Args:
        folder: The folder.
        path: The checkpoint.
        train_length: Tokens per training row; default: what the folder says.
        weights_only: Whether to leave out a training state that lies in the folder.

    Raises:
        ValueError: If the folder can't be read, its training state belongs to another model, or nothing says
            train_length.
    """
    stored = read_folder(folder)
    head, labels = folder_head(folder)
    skeleton = _skeleton(stored.config, stored.method, head, labels, f"{folder}: head")
    if head is not None:
        stored.weights.pop(HEAD, None)  # tied to the embeddings, and no part of this model
    check_fit(skeleton, stored.weights, str(folder))
    weights: dict[str, Tensor] = OrderedDict(
        (MODEL_PREFIX + name, stored.weights[name]) for name in skeleton.state_dict()
    )
    if (folder / STATE).is_file() and not weights_only:
        content = _training_state(folder, stored.source, stored.config, stored.method, train_length)
        content["state_dict"] = OrderedDict(**weights, **content["state_dict"])
    else:
        length = train_length or stored.train_length
        if length is None:
            raise ValueError(f"{folder} does not say how many tokens its training rows had: give --train_length.")
        with empty_init():
            module = (
                GAUAlphaModule(stored.config, length, stored.method)
                if head is None
                else GAUAlphaFineTuning(stored.config, length, build_head(head, str(folder)), labels, stored.method)
            )
        content = {
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": weights,
            "hparams_name": "kwargs",
            "hyper_parameters": dict(module.hparams),
            RUN_KEY: {"tokenizer": tokenizer_files_in(folder), SPLITS_KEY: started_from(folder)[SPLITS_KEY]},
        }
    write_atomic(path, lambda unfinished: torch.save(content, unfinished))


def _training_state(
    folder: Path, weights: Path, config: GAUAlphaConfig, method: AttentionMethod, train_length: int | None
) -> dict[str, Any]:
    state = read_training_state(folder / STATE)
    own_config, own_method, _ = model_of(state, str(folder / STATE))
    same = (own_config, own_method.describe()) == (config, method.describe())
    if not same or state.pop(SHA256, None) != _sha256(weights):
        raise ValueError(
            f"{folder / STATE} belongs to other weights or another config than lie beside it now: training could not "
            f"go on from both. Give --weights_only to leave it out."
        )
    if train_length not in (None, state["hyper_parameters"]["train_length"]):
        raise ValueError(
            f"--train_length is {train_length}, but {folder / STATE} was left by a run on rows of "
            f"{state['hyper_parameters']['train_length']} tokens. Leave it out, or give --weights_only."
        )
    return state


def _skeleton(
    config: GAUAlphaConfig, method: AttentionMethod, head: object, labels: Sequence[str], where: str
) -> GAUAlphaModel:
    """Build a model without weights, to know names and shapes."""
    with empty_init():
        if head is None:
            return GAUAlphaForMaskedLM(config, method)
        return build_head(head, where)(config, method, "auto", labels)


def _tokenizer(checkpoint: dict[str, Any], source: Path, given: Path | None) -> tuple[int | None, dict[str, str]]:
    """Return the id of the padding and the tokenizer's files.

    Without a tokenizer the folder holds a model all the same, and a note says what it lacks.
    """
    if given is not None:
        own = TokenizerFile(str(given))
        return own.vocabulary.pad_id, tokenizer_files(own)
    try:
        tokenizer, files = tokenizer_of(checkpoint, source)
    except ValueError as error:
        print(printable(f"gau-alpha: note: the folder gets no tokenizer: {error}"), file=sys.stderr)
        return None, {}
    if not files:
        note = f"the folder gets no tokenizer: {source} carries none. Give its file with --tokenizer."
        print(printable(f"gau-alpha: note: {note}"), file=sys.stderr)
    return tokenizer.vocabulary.pad_id, files


def _check_destination(path: Path, overwrite: bool, is_file: bool) -> None:
    if is_file != (path.suffix == ".ckpt") or (path.is_dir() if is_file else path.is_file()):
        raise ValueError(
            f"DST is {str(path)!r}, but "
            + ("a folder becomes a checkpoint: DST must end in .ckpt." if is_file else "a checkpoint becomes a folder.")
        )
    taken = path.exists() if is_file else path.is_dir() and any(path.iterdir())
    if taken and not overwrite:
        raise ValueError(f"{path} exists already; choose another DST, or replace it with --overwrite.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
