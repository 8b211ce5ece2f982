"""Everything that training must find as it was before an evaluation."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def preserve_training_state(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards all is as before, also when the body raises.

    Kept: the train/eval flag of every submodule (a frozen part may be in evaluation mode on its own), the grad mode,
    and the streams of Python's, numpy's and torch's random generators (the CPU's and the model's GPU's).

    A compiled model runs uncompiled: lengths and methods would otherwise each be compiled anew, at a cost of minutes,
    and use up the limit on recompilations that training may come to need.

    ``no_grad`` and not ``inference_mode``: a table that the model caches meanwhile must still serve training.

    Args:
        model: The model under evaluation.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  it is the global stream that is to be kept
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            torch.no_grad(),
            torch.compiler.set_stance("force_eager"),
        ):
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
