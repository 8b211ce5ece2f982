"""A training batch kept in a file, with what is needed to compute its loss and gradient again.

B rows, L tokens of a row.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from gau_alpha.checkpoints import read_checkpoint
from gau_alpha.checkpoints.atomic_write import write_atomic
from gau_alpha.finetuning.module import GAUAlphaFineTuning
from gau_alpha.training.loss import Batch
from gau_alpha.training.module import GAUAlphaModule

WEIGHTS = "weights.ckpt"
"""The checkpoint beside the batches, with the weights that they met."""

_FACTS = "facts"


@dataclass(frozen=True)
class Rerun:
    """What a kept step gives.

    Attributes:
        losses: The summed loss of each batch.
        gradient_norm: Over all weights, of the sum of the losses.
    """

    losses: list[float]
    gradient_norm: float


def keep(path: Path, batches: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> Path:
    """Write a process's batches of one optimizer step.

    Args:
        path: The file.
        batches: One, or as many as gradients were accumulated over. What is no tensor is left out.
        facts: Plain data; ``rerun`` reads ``epoch``, ``precision`` and ``seeds``, torch's seed of each batch.
    """
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous().clone()  # safetensors keeps no tensors that share memory
        for number, batch in enumerate(batches)
        for name, value in batch.items()
        if isinstance(value, Tensor)
    }
    content = save(tensors, {_FACTS: json.dumps(dict(facts))})
    return write_atomic(path, lambda unfinished: unfinished.write_bytes(content))


def load(path: str | Path) -> tuple[list[Batch], dict[str, Any]]:
    """Read what ``keep`` wrote: the batches, tensors (B, L) by name, and the facts."""
    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {})[_FACTS])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    batches: list[Batch] = [{} for _ in facts["seeds"]]
    for name, tensor in tensors.items():
        number, _, own = name.partition(".")
        batches[int(number)][own] = tensor
    return batches, facts


def rerun(path: str | Path, checkpoint: str | Path | None = None, accelerator: str = "auto") -> Rerun:
    """Compute loss and gradient of kept batches again, with the precision and the dropout of the run.

    Args:
        path: What ``keep`` wrote.
        checkpoint: The weights; default: those beside the file.
        accelerator: ``cpu``, ``gpu`` or ``auto``. Dropout is the same only on a device of the same kind.

    Raises:
        ValueError: If the checkpoint is missing or no plain data.
    """
    batches, facts = load(path)
    checkpoint = Path(path).with_name(WEIGHTS) if checkpoint is None else checkpoint
    headed = "head" in read_checkpoint(checkpoint)["hyper_parameters"]
    module = (GAUAlphaFineTuning if headed else GAUAlphaModule).load_from_checkpoint(checkpoint).train()
    fabric = Fabric(accelerator=accelerator, devices=1, precision=facts["precision"])
    fabric.setup_module(module)  # moves it to the device
    losses = []
    for batch, seed in zip(batches, facts["seeds"], strict=True):
        on_device = fabric.to_device(batch)
        torch.manual_seed(seed)
        with fabric.autocast():
            loss, _, _ = module.training_loss(on_device, facts["epoch"])
        loss.backward()
        losses.append(float(loss.detach()))
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return Rerun(losses, float(torch.nn.utils.get_total_norm(gradients)))
