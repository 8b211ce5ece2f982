"""torch 2.13: compiled by inductor, a product with a view that overlaps itself has a wrong gradient.

One would expect rounding, 1e-6. Seen with torch 2.13.0+cpu: 1.34; the forward pass is right, and so is the backend
aot_eager. Kernels of ours that use such views copy them in compiled code (gau_alpha/attention/kernels/band.py).

Ends with code 1 if this changes.
"""

import sys

import torch
import torch.nn.functional as F


def product(x: torch.Tensor) -> torch.Tensor:
    """Multiply blocks of 16 rows of (128, 16) with the 32 rows around each."""
    around = F.pad(2 * x, (0, 0, 8, 8)).unfold(0, 32, 16)  # (8, 16, 32), neighbours share half of their rows
    return (x.unflatten(0, (8, 16)) @ around).softmax(-1)  # (8, 16, 32)


torch.manual_seed(0)
x = torch.randn(128, 16, requires_grad=True)
upstream = torch.randn(8, 16, 32)
(plain,) = torch.autograd.grad(product(x), x, upstream)
(compiled,) = torch.autograd.grad(torch.compile(product)(x), x, upstream)
difference = (plain - compiled).abs().max().item()
print(f"torch {torch.__version__}: largest difference of the gradients {difference:.3g}")
sys.exit(difference < 1e-3)
