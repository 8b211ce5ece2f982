"""Norm and activation with fewer passes over memory than autograd's own, and the same digits.

In a training step these passes cost more than anything but matrix products. Each function here does what the plain
formula does, operation by operation, and leaves out temporaries; ``tests/gau_alpha/test_pointwise.py`` holds that no
bit of values or gradients differs from the plain formula's.

B batch, L length, H last dimension.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


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
    """silu of the whole, then the parts; the parts' gradients meet in one buffer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x)
        return F.silu(x).split(sizes, dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        gradient = torch.cat(gradients, dim=-1)
        return torch.ops.aten.silu_backward.grad_input(gradient, x, grad_input=gradient), None


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
    """Apply silu to (B, L, Σ sizes) and cut the last dimension.

    Args:
        x: (B, L, Σ sizes). Nothing else needs it: without gradients it is overwritten.
        sizes: Widths of the parts.

    Returns:
        The parts, (B, L, size) each.
    """
    if torch.compiler.is_compiling():
        return F.silu(x).split(sizes, dim=-1)
    if not x.requires_grad:
        return F.silu(x, inplace=True).split(sizes, dim=-1)
    return _SiluSplit.apply(x, sizes)
