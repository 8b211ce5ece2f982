"""Norm and activation with fewer passes over memory than autograd's own, and the same digits.

In a training step these passes cost more than anything but matrix products. Each function here does what the plain
formula does, operation by operation, and leaves out temporaries; ``tests/gau_alpha/test_pointwise.py`` holds that on
one thread no bit of values or gradients differs from the plain formula's. (torch computes exponentials eight or sixteen
at a time and rounds those left over differently: at the end of a part that is no multiple of 32 wide, or where threads
divide a tensor.)

H hidden size, E value width, D key size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.autograd.graph import increment_version

from gau_alpha.pieces import pieces

_STRIDED = ("cpu", "cuda", "meta")
"""Devices trusted with gradients of silu in parts of a tensor: Apple's gave wrong ones (torch issue 175188)."""

Gate = Callable[[Tensor], Tensor]
"""Multiplies (..., E) by what it was made of."""


class _Norm(Function):
    """y = x · r with r = (mean(x²) + ε)^−½; dx = g·r − x · r³ · Σ(g·x) / H."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        inverse = x.square().mean(dim=-1, keepdim=True).add_(eps).rsqrt_()  # (..., 1)
        ctx.save_for_backward(x, inverse)
        return x * inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, inverse = ctx.saved_tensors
        product = gradient * x  # (..., H), used again below
        # The halves and twos of the derivatives of √ and x² are exact, so they may cancel.
        factor = -product.sum(dim=-1, keepdim=True) * inverse.pow(3) / x.shape[-1]  # (..., 1)
        return (gradient * inverse).add_(torch.mul(x, factor, out=product)), None


class _SiluSplit(Function):
    """silu of all parts, or of all but the first, which is left to ``_Gate``.

    The parts' gradients meet in the memory of x, so that they need not be joined, nor need any of their own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], gated: bool) -> tuple[Tensor, ...]:
        # Of x itself autograd would object that the gate has written its gradient into it.
        ctx.save_for_backward(x.data)
        # An empty tensor with x's count of versions, by which autograd tells whoever else has kept x.
        ctx.versions = x.detach()
        ctx.versions.data = x.new_empty(0)
        ctx.sizes, ctx.gated = sizes, gated
        first, *others = x.split(sizes, dim=-1)
        return first.detach() if gated else F.silu(first), *map(F.silu, others)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        whole = torch.empty_like(x) if _is_graph_kept() else x
        if whole is x:
            increment_version(ctx.versions)
        parts = list(zip(gradients, x.split(ctx.sizes, dim=-1), whole.split(ctx.sizes, dim=-1), strict=True))
        if ctx.gated:
            gradient, _, place = parts.pop(0)
            if gradient.data_ptr() != place.data_ptr():  # a gate that was not opened, a kept graph or copy of x
                place.copy_(gradient)
        for gradient, part, place in parts:
            torch.ops.aten.silu_backward.grad_input(gradient, part, grad_input=place)
        return whole, None, None


class _Gate(Function):
    """silu(g) ⊙ c, a piece at a time; silu(g) is computed twice rather than written to memory and read again."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, context: Tensor) -> Tensor:
        ctx.save_for_backward(g, context)
        gated = context.new_empty(context.shape)
        for one, c, place in pieces(g, context, gated):
            torch.mul(F.silu(one), c, out=place)
        return gated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        g, context = ctx.saved_tensors
        # The context's gradient takes no tensor's place: an attention kernel may have kept its output for its own.
        of_g, of_context = torch.empty_like(g) if _is_graph_kept() else g.detach(), context.new_empty(context.shape)
        for upstream, one, c, place, place_of_c in pieces(gradient, g, context, of_g, of_context):
            torch.mul(upstream, F.silu(one), out=place_of_c)
            torch.ops.aten.silu_backward.grad_input(upstream * c, one, grad_input=place)
        return of_g, of_context


def _is_graph_kept() -> bool:
    """Whether what the forward pass kept is needed after the running backward pass (``retain_graph``).

    Torch's compiler asks the same of the same function, which is private, before it reuses memory so.
    """
    return torch._C._autograd._get_current_graph_task_keep_graph()


def norm(x: Tensor, eps: float) -> Tensor:
    """X / √(mean(x²) + ε) over the last dimension, in float32: no scale, no offset.

    Args:
        x: (..., H).
        eps: ε.

    Returns:
        (..., H), of the dtype of ``x``.
    """
    if torch.compiler.is_compiling():  # a compiler leaves out temporaries by itself, and trips over those left out here
        return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype)
    return _Norm.apply(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x, eps).to(x.dtype)


def silu_split(x: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Apply silu to (..., Σ sizes) and cut the last dimension.

    Args:
        x: (..., Σ sizes). It is overwritten: at once, or, where gradients are wanted, by the backward pass unless the
            graph is kept. A leaf is copied first.
        sizes: Widths of the parts.

    Returns:
        The parts, (..., size) each.
    """
    if torch.compiler.is_compiling() or x.device.type not in _STRIDED:
        return F.silu(x).split(sizes, dim=-1)
    if not x.requires_grad:
        return F.silu(x, inplace=True).split(sizes, dim=-1)
    return _SiluSplit.apply(_own(x), sizes, False)


def silu_gate(x: Tensor, sizes: list[int]) -> tuple[Gate, Tensor, Tensor]:
    """Apply silu to (..., E + E + D) and cut the last dimension; the first part becomes a gate.

    Args:
        x: (..., E + E + D). It is overwritten: at once, or, where gradients are wanted, by the backward pass unless the
            graph is kept. A leaf is copied first.
        sizes: E, E, D.

    Returns:
        The gate, to be opened once, which multiplies its argument (..., E) by the first part and overwrites it where no
        gradient needs it; the other parts, (..., E) and (..., D).
    """
    if torch.compiler.is_compiling() or not x.requires_grad or x.device.type not in _STRIDED:
        u, v, base = silu_split(x, sizes)  # (..., E), (..., E), (..., D)
        return partial(_multiply, u), v, base
    g, v, base = _SiluSplit.apply(_own(x), sizes, True)
    return partial(_Gate.apply, g), v, base


def _own(x: Tensor) -> Tensor:
    """``x``, or a copy of what must not be written to, or not in pieces."""
    return x.clone() if x.is_leaf else x.contiguous()


def _multiply(u: Tensor, context: Tensor) -> Tensor:
    return u * context if context.requires_grad or torch.compiler.is_compiling() else context.mul_(u)
