"""Optimizers by name: which parameters each part steps, which of them decay, and at which rates.

A factory is what a YAML names, ``{class_path: Muon, init_args: {…}}``: plain numbers, from which a run that begins
makes an optimizer of torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gau_alpha.attention.strategy import init_parameters
from gau_alpha.training.joined import JoinedOptimizer
from gau_alpha.untrusted.limits import require_number, require_whole
from gau_alpha.untrusted.registry import public_path, shown


class OptimizerFactory(ABC):
    """Rates, and the optimizer that is made of them when a run begins.

    A subclass keeps every argument of its constructor in an attribute of the same name.

    Args:
        learning_rate: Peak rate; the schedule multiplies it.
        weight_decay: Decay of matrices, decoupled from the gradient (Loshchilov & Hutter 2019, arXiv 1711.05101).
            Scales, offsets, biases and whatever an attention method learns do not decay: pulling a scale towards 0 is
            no regularisation.

    Raises:
        ValueError: If a rate is out of range.
    """

    def __init__(self, learning_rate: float = 1e-3, weight_decay: float = 0.01) -> None:
        require_number("learning_rate", learning_rate, above=0)
        require_number("weight_decay", weight_decay, least=0)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    @abstractmethod
    def build(self, model: nn.Module, fused: bool) -> Optimizer:
        """Make the optimizer.

        Args:
            model: Whose parameters it steps; those that need no gradient are left alone.
            fused: Whether AdamW may do its step in one kernel.

        Raises:
            ValueError: If it can't step this model's parameters.
        """

    @abstractmethod
    def parts(self, model: nn.Module) -> dict[str, list[Tensor]]:
        """Say which parameters are treated alike: each trained one once, under what is done with it."""

    def summary(self, model: nn.Module) -> str:
        """Say in one line which parameters go where, as ``fit`` prints it at its start.

        Args:
            model: A model.
        """
        named = self.parts(model).items()
        told = [f"{what}: {len(some)} tensors, {sum(x.numel() for x in some):,} numbers" for what, some in named]
        return f"{type(self).__name__} ({'; '.join(told)})"

    def describe(self) -> dict[str, Any]:
        """Say in plain data how to build this factory."""
        arguments = {name: getattr(self, name) for name in init_parameters(type(self))}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in arguments.items()}
        return {"class_path": public_path(type(self)), "init_args": plain}


class AdamW(OptimizerFactory):
    """AdamW for all parameters (Loshchilov & Hutter 2019, arXiv 1711.05101).

    Args:
        learning_rate: Peak rate; the schedule multiplies it.
        weight_decay: Decay of matrices; scales, offsets and biases do not decay.
        betas: Decay rates of the first and second moment.

    Raises:
        ValueError: If a rate is out of range.
    """

    def __init__(
        self, learning_rate: float = 1e-3, weight_decay: float = 0.01, betas: tuple[float, float] = (0.9, 0.98)
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.betas = _checked_betas(betas)

    def build(self, model: nn.Module, fused: bool) -> Optimizer:
        """Make torch's AdamW of two groups: what decays, and what does not."""
        return torch.optim.AdamW(
            parameter_groups(model, self.weight_decay), lr=self.learning_rate, betas=self.betas, fused=fused
        )

    def parts(self, model: nn.Module) -> dict[str, list[Tensor]]:
        """Say what decays and what does not."""
        hidden, matrices, others = split_parameters(model)
        return {"matrices, which decay": [*hidden, *matrices], "scales, which do not": others}


class Muon(OptimizerFactory):
    """Muon for hidden matrices, AdamW for all else (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

    The step of a matrix is its momentum with all singular values made about 1. It is torch's own, in one optimizer with
    torch's AdamW for embeddings, head and scales, which are not meant to be orthogonal. ``split_parameters`` has the
    rule.

    Args:
        learning_rate: Peak rate of both; the schedule multiplies it.
        weight_decay: Decay of matrices under both; scales, offsets and biases do not decay.
        momentum: Of the hidden matrices, with Nesterov's look-ahead.
        betas: AdamW's decay rates of the first and second moment.
        adjust_lr_fn: How the rate follows a matrix's shape, by torch's names: ``match_rms_adamw`` makes steps as large
            as AdamW's, so that its rate and decay serve both (Liu et al. 2025, arXiv 2502.16982, section 2.2);
            ``original`` is Jordan's, for rates such as 0.02.
        adamw_learning_rate: Peak rate of AdamW where it is another. Default: ``learning_rate``.
        ns_steps: Newton–Schulz iterations that make singular values alike.

    Raises:
        ValueError: If a rate is out of range, or ``adjust_lr_fn`` is another word.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        adamw_learning_rate: float | None = None,
        ns_steps: int = 5,
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        require_number("momentum", momentum, least=0, below=1)
        if adjust_lr_fn not in ("match_rms_adamw", "original"):
            raise ValueError(f"adjust_lr_fn must be match_rms_adamw or original, got {shown(adjust_lr_fn)}.")
        if adamw_learning_rate is not None:
            require_number("adamw_learning_rate", adamw_learning_rate, above=0)
        require_whole("ns_steps", ns_steps, most=99)
        self.momentum = momentum
        self.betas = _checked_betas(betas)
        self.adjust_lr_fn = adjust_lr_fn
        self.adamw_learning_rate = adamw_learning_rate
        self.ns_steps = ns_steps

    def build(self, model: nn.Module, fused: bool) -> Optimizer:
        """Make one optimizer of three groups: hidden matrices, other matrices, and what does not decay."""
        hidden, matrices, others = split_parameters(model)
        muon = torch.optim.Muon(
            hidden,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            adjust_lr_fn=self.adjust_lr_fn,
            ns_steps=self.ns_steps,
        )
        adamw = torch.optim.AdamW(
            _decaying(matrices, others, self.weight_decay),
            lr=self.adamw_learning_rate or self.learning_rate,
            betas=self.betas,
            fused=fused,
        )
        return JoinedOptimizer([muon, adamw])

    def parts(self, model: nn.Module) -> dict[str, list[Tensor]]:
        """Say what Muon steps, and what AdamW."""
        hidden, matrices, others = split_parameters(model)
        return {
            "hidden matrices, by Muon": hidden,
            "embeddings and head, by AdamW": matrices,
            "scales, by AdamW without decay": others,
        }


def split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Split a model's trained parameters: the one rule of what decays and of what Muon steps.

    Args:
        model: The model.

    Returns:
        Hidden matrices (out, in), those of the encoder's layers; other matrices: embeddings and head; and what is no
        matrix, or is learned by an attention method, whatever its shape.
    """
    hidden: list[Tensor] = []
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or ".method." in name:
            others.append(parameter)
        elif ".encoder.layer." in f".{name}":
            hidden.append(parameter)
        else:
            matrices.append(parameter)
    return hidden, matrices, others


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters into those that decay and those that don't; see ``OptimizerFactory``.

    Args:
        model: The model.
        weight_decay: Decay of the matrices.

    Returns:
        Two groups for an optimizer.
    """
    *matrices, others = split_parameters(model)
    decays = {id(parameter) for some in matrices for parameter in some}
    return _decaying([x for x in model.parameters() if id(x) in decays], others, weight_decay)  # in the model's order


def expected_state(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor] | None:
    """Say what an optimizer keeps of a parameter that it has stepped, by tensors of the same shapes.

    Args:
        optimizer: The optimizer, or a part of a joined one.
        parameter: (…) one of its parameters.

    Returns:
        None for optimizers that are not ours to know.
    """
    if isinstance(optimizer, torch.optim.Muon):
        return {"momentum_buffer": parameter}
    if isinstance(optimizer, torch.optim.AdamW):
        return {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
    return None


def _decaying(matrices: Sequence[Tensor], others: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _checked_betas(betas: Sequence[float]) -> tuple[float, float]:
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {shown(betas)}.")
    for beta in betas:
        require_number("Each of betas", beta, least=0, below=1)
    return betas[0], betas[1]
