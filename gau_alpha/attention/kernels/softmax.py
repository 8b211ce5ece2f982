"""Scores to weights, and their entropy.

B batch (1 where all rows agree), Lq and Lk queries and keys of a block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEGLIGIBLE = 1e-30
"""Weights up to this are 0: far below what float32 can add to a sum."""


def softmax(score: Tensor, visible: Tensor | None, num_visible_keys: Tensor) -> Tensor:
    """Turn scores into weights.

    Args:
        score: (B, …, Lq, Lk) float32.
        visible: (B|1, …, Lq, Lk) bool, or None if every key is seen.
        num_visible_keys: (B|1, …, Lq) int64, n.

    Returns:
        (B, …, Lq, Lk) float32, zeros for a query that sees no key.
    """
    if visible is not None:
        # A finite floor instead of −∞ keeps a query that sees nothing (and its gradient) from becoming NaN.
        score = score.masked_fill(~visible, torch.finfo(score.dtype).min)
    weights = score.softmax(dim=-1)
    if weights.device.type == "cpu":
        # A matrix product over denormal weights, which sharp scores leave, is up to 50 times slower on some processors.
        weights = F.threshold(weights, NEGLIGIBLE, 0.0, inplace=not weights.requires_grad)
    return weights if visible is None else weights.masked_fill(num_visible_keys[..., None] == 0, 0.0)


def entropy(weights: Tensor, score: Tensor) -> Tensor:
    """Compute −Σ_j A_ij ln A_ij in nats without taking the logarithm of every weight.

    ln A_ij = s_ij − max_j s_ij − ln Z_i, and the largest weight is 1 / Z_i.

    Args:
        weights: (B, …, Lq, Lk).
        score: (B, …, Lq, Lk), what they were made of; any number where a weight is 0.

    Returns:
        (B, …, Lq) float32, 0 for a query that sees no key.
    """
    unseen = weights == 0
    largest_score = score.masked_fill(unseen, torch.finfo(score.dtype).min).amax(dim=-1, keepdim=True)  # (B, …, Lq, 1)
    centred = (score - largest_score).masked_fill(unseen, 0.0)  # (B, …, Lq, Lk)
    largest = weights.amax(dim=-1)  # (B, …, Lq)
    mean_score = (weights * centred).sum(-1)  # (B, …, Lq)
    return torch.where(largest > 0, -largest.clamp_min(torch.finfo(weights.dtype).tiny).log() - mean_score, 0.0)


def drop(weights: Tensor, probability: float) -> Tensor:
    """Drop weights at random, and make up for it in the others.

    Args:
        weights: (…) of any shape.
        probability: With which a weight is dropped; 0 does nothing.

    Returns:
        (…) like ``weights``.
    """
    return F.dropout(weights, probability) if probability else weights
