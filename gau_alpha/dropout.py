"""Dropout whose masks cost a CPU little.

torch draws the numbers of a mask one after the other, two 32-bit words for each; that is 7 % of a training step of
rows of 64. Four decisions per 64-bit word are a quarter of that.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable

_VALUES = 2**16


class Dropout(nn.Module):
    """``drop`` in training, nothing otherwise.

    Args:
        rate: Probability with which a number becomes 0, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop numbers in training.

        Args:
            x: (…), of any shape.

        Returns:
            (…).
        """
        return drop(x, self.rate) if self.training else x

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"{self.rate}"


def drop(x: Tensor, rate: float) -> Tensor:
    """Put 0 in place of numbers drawn by torch's generator, and scale the others so that the mean stays.

    Args:
        x: (…), of any shape; left as it is.
        rate: Probability with which a number becomes 0, in [0, 1). On a CPU it is rounded to a multiple of 2⁻¹⁶, and
            the scale is that of the rounded one: nothing is biased.

    Returns:
        (…), of the dtype of ``x``; ``x`` itself if ``rate`` is 0.
    """
    if not rate:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():  # masks are cheap there
        return F.dropout(x, rate)
    return _Drop.apply(x, rate)


class _Drop(Function):
    """Keeps two bytes a number for the gradient, and multiplies by ones and zeros.

    torch takes three times as long to choose by booleans, and would keep four bytes a number that it multiplies by.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float) -> Tensor:
        count = x.numel()
        # Without bounds, `random_` leaves the sign bit 0.
        words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
        decisions = words.view(torch.int16)[:count].view(x.shape)
        dropped = min(round(rate * _VALUES), _VALUES - 1)  # of so many values, that many mean 0
        ctx.save_for_backward(decisions)
        ctx.dropped = dropped
        return _kept(x, decisions, dropped)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (decisions,) = ctx.saved_tensors
        return _kept(gradient, decisions, ctx.dropped), None


def _kept(x: Tensor, decisions: Tensor, dropped: int) -> Tensor:
    """Leave of ``x`` (…) what the int16 decisions (…) keep, scaled so that the mean stays."""
    ones = torch.ge(decisions, dropped - _VALUES // 2, out=torch.empty(x.shape, dtype=x.dtype))
    return ones.mul_(x).mul_(_VALUES / (_VALUES - dropped))
