"""A step whose loss or gradient is not finite changes nothing, and ends the run.

W processes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from callbacks.nonfinite.errors import NotFiniteError
from callbacks.nonfinite.reproduction import WEIGHTS, keep
from callbacks.run_path import shared_run_path
from gau_alpha.untrusted.limits import require_whole


class Guard(Callback):
    """Keeps infinite numbers and NaN in a loss or a gradient away from the weights; ``gau-alpha fit`` has one.

    The optimizer step is skipped on all processes: weights, moments and AdamW's count of steps stay as they are. The
    step counts for everything else: its batch is used up, the learning rate and ``global_step`` go on, and the logged
    training loss shows it. Each process keeps its batches of the step in
    ``<run's folder>/not_finite/step_<n>/rank_<r>.safetensors``. Then the run ends, or, below the limit, goes on.
    ``callbacks.nonfinite.rerun`` computes such a file again.

    On a GPU nothing waits for the check: fused optimizers learn on the device that they are to do nothing, and the
    host looks at the outcome a step later. Others are told by the host, which waits for the gradient.

    Under precision ``16-mixed`` gradients that overflow are the scaler's affair; losses are watched.

    Args:
        max_skips: How many steps of the run may be skipped; one more ends it. It goes on counting where a run is
            resumed.

    Raises:
        ValueError: If ``max_skips`` is negative.
    """

    def __init__(self, max_skips: int = 0) -> None:
        require_whole("max_skips", max_skips, least=0, why="0 ends the run at the first such step")
        self.max_skips = max_skips
        self._num_skipped = 0
        self._batches: list[_Batch] = []  # of the running step
        self._step: _Step | None = None  # the last one, until the host has looked

    def state_dict(self) -> dict[str, int]:
        """Remember how many steps were skipped."""
        return {"num_skipped": self._num_skipped}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Take up what ``state_dict`` remembered.

        Raises:
            ValueError: If it is no number of steps.
        """
        require_whole("The checkpoint's num_skipped of Guard", state_dict.get("num_skipped"), least=0)
        self._num_skipped = state_dict["num_skipped"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what an earlier run has left."""
        self._batches, self._step = [], None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        """Hold on to the batch."""
        self._batches.append(_Batch(batch, batch_idx))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Hold on to the loss, and to the seed that the batch's dropout was drawn with."""
        self._batches[-1].loss = loss.detach()
        self._batches[-1].seed = torch.initial_seed()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at losses and gradients, all processes together; skip the step if any of them is not finite."""
        self._settle(trainer)
        batches, self._batches = self._batches, []
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        bad = _not_finite(batches, optimizer, with_gradient=not scaled)  # (W, 2)
        self._step = _Step(trainer.global_step + 1, trainer.current_epoch, batches, bad)
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            # What GradScaler tells fused optimizers; their kernels do nothing where it is 1.
            optimizer.found_inf = (bad.sum() > 0).float()  # type: ignore[attr-defined]
        elif self._step.is_bad():
            optimizer.zero_grad(set_to_none=True)  # without a gradient an optimizer leaves weight and moments alone

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """See to the last step before it is saved as done."""
        self._settle(trainer)
        checkpoint["callbacks"][self.state_key] = self.state_dict()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to the last step, and leave the optimizer to whoever steps it next."""
        for optimizer in trainer.optimizers:
            vars(optimizer).pop("found_inf", None)
        self._settle(trainer)

    def _settle(self, trainer: Trainer) -> None:
        """Keep the last step's batches and end the run, if it was skipped; all processes do the same.

        Raises:
            NotFiniteError: If no further step may be skipped.
        """
        step, self._step = self._step, None
        if step is None or not step.is_bad():
            return
        self._num_skipped += 1
        ends = self._num_skipped > self.max_skips
        folder = _folder(trainer) / f"step_{step.number}"
        file = folder / f"rank_{trainer.global_rank}.safetensors"
        keep(file, [one.batch for one in step.batches], step.facts(trainer))
        message = (
            f"Optimizer step {step.number} was skipped: {step.what()}. Process {trainer.global_rank} had the rows "
            f"{step.sample_ids()}; every process has kept its batch, this one as {file}."
        )
        if not ends:
            rank_zero_warn(f"{message} {self._num_skipped} of {self.max_skips} steps that may be skipped.")
            return
        # No optimizer has moved them since: they are what the batches met.
        trainer.save_checkpoint(folder / WEIGHTS, weights_only=True)
        raise NotFiniteError(
            f"{message} The weights are beside it, as they were and still are. See what a batch does with\n"
            f'  python -c "from callbacks.nonfinite import rerun; print(rerun({str(file)!r}))"\n'
            f"A lower learning rate, gradient clipping or another precision may help; callbacks.nonfinite.Guard "
            f"with max_skips above {self.max_skips} lets the run go on without such steps."
        )


class _Batch:
    """A batch of a step, and what became of it."""

    def __init__(self, batch: Mapping[str, Any], index: int) -> None:
        self.batch = batch
        self.index = index
        self.loss: Tensor | None = None  # (), None if there was none
        self.seed = 0


class _Step:
    """An optimizer step, of which the host does not know yet how it went.

    Args:
        number: Counted from 1.
        epoch: The epoch.
        batches: This process's batches.
        bad: (W, 2), above 0 where a process's loss and its gradient are not finite.
    """

    def __init__(self, number: int, epoch: int, batches: list[_Batch], bad: Tensor) -> None:
        self.number = number
        self.epoch = epoch
        self.batches = batches
        self._bad = bad.to("cpu", non_blocking=True)
        self._arrived = torch.cuda.Event() if bad.is_cuda else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(bad.device))

    def is_bad(self) -> bool:
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._bad.any())

    def what(self) -> str:
        losses = self._bad[:, 0].nonzero().flatten().tolist()
        if losses:
            return f"the loss is not finite on process {', '.join(map(str, losses))}"
        if len(self._bad) == 1:
            return "the gradient is not finite, though the loss is"
        return "the gradient, summed over processes, is not finite, though every loss is"

    def sample_ids(self) -> list[int]:
        return [number for one in self.batches for number in one.batch.get("sample_ids", torch.empty(0)).tolist()]

    def facts(self, trainer: Trainer) -> dict[str, Any]:
        return {
            "step": self.number,
            "epoch": self.epoch,
            "rank": trainer.global_rank,
            "world_size": trainer.world_size,
            "precision": str(trainer.precision),
            "what": self.what(),
            "batches": [one.index for one in self.batches],
            "seeds": [one.seed for one in self.batches],
            "sample_ids": self.sample_ids(),
        }


def _not_finite(batches: list[_Batch], optimizer: Optimizer, with_gradient: bool) -> Tensor:
    """(W, 2), above 0 where a process's loss and its gradient are not finite; the same on all processes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    device = parameters[0].device
    losses = [one.loss for one in batches if one.loss is not None]
    own = torch.zeros(2, device=device)
    if losses:
        own[0] = ~torch.stack(losses).isfinite().all()
    gradients = [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    gradients = [gradient for gradient in gradients if gradient.numel()]  # a process may have no share of a small one
    if with_gradient and gradients:
        # One pass, 30 times as fast as isfinite on a CPU. Squares overflow beyond 1.8e19, and so do AdamW's moments.
        own[1] = ~torch.nn.utils.get_total_norm(gradients).isfinite()
    if not dist.is_available() or not dist.is_initialized():
        return own[None]
    bad = torch.zeros(dist.get_world_size(), 2, device=device)
    bad[dist.get_rank()] = own
    dist.all_reduce(bad)
    return bad


def _local(gradient: Tensor) -> Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _folder(trainer: Trainer) -> Path:
    """On all processes: the folder is agreed on between them."""
    return shared_run_path(trainer) / "not_finite"
