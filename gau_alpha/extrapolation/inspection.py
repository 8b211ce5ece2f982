"""What attention does on one text, in one call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gau_alpha.extrapolation.diagnostics import AttentionMeter
from gau_alpha.extrapolation.evaluate_length import preserve_training_state


def attention_entropies(model: Any, input_ids: Sequence[int] | np.ndarray | Tensor) -> list[float]:
    """Measure the mean attention entropy of each layer on one text, under the method that the model has.

    Args:
        model: A ``GAUAlphaForMaskedLM``, or a model with another head; it is as before afterwards.
        input_ids: (L,) token ids.

    Returns:
        Nats, a number per layer.

    Raises:
        ValueError: If there are no ids, or they do not make one row.
    """
    ids = torch.as_tensor(np.asarray(input_ids), dtype=torch.int64)
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"input_ids must be the ids of one text, got an array of shape {tuple(ids.shape)}.")
    length, num_layers = len(ids), model.config.num_hidden_layers
    meter = AttentionMeter(num_layers, length, train_length=length, distances=False)
    with preserve_training_state(model):
        model.encode(ids[None].to(next(model.parameters()).device), observer=meter)
    assert meter.sums is not None, "every layer calls the meter"
    return (meter.sums[0, :, 0] / length).tolist()
