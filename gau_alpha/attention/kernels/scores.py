"""Scores: products of rotated queries and keys, gain and bias. Weights: what hides keys, and what drops weights.

What makes weights of scores is the method's normalizer.

B batch (1 where all rows agree), L length, D key size, N blocks of queries, Lq and Lk queries and keys of a block.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gau_alpha.attention.layout import SequenceLayout, look_up
from gau_alpha.attention.method import AttentionPlan
from gau_alpha.normalizer import Normalizer
from gau_alpha.position import RotaryBranch, rotate

NEGLIGIBLE = 1e-30
"""Weights up to this are 0: far below what float32 can add to a sum."""


class Placed(NamedTuple):
    """Queries and keys rotated for one branch; the query is multiplied by τ.

    Attributes:
        branch: The branch.
        query: (B, L, D) float32.
        key: (B, L, D) float32.
    """

    branch: RotaryBranch
    query: Tensor
    key: Tensor


def place(query: Tensor, key: Tensor, plan: AttentionPlan) -> list[Placed]:
    """Rotate queries and keys for each branch that holds at some distance in these rows.

    τ multiplies similarity and bias alike; on the similarity it costs nothing when folded into the query.

    Args:
        query: (B, L, D) float32, prepared.
        key: (B, L, D) float32, prepared.
        plan: The method's plan.
    """
    length = plan.layout.length
    query = query * plan.temperature[:, :, None]  # (B, L, D)
    return [
        Placed(branch, rotate(query, branch.query), rotate(key, branch.key))
        for branch in plan.branches
        if holds_between(branch, plan.layout, -length, length)
    ]


def holds_between(branch: RotaryBranch, layout: SequenceLayout, least: int, most: int) -> bool:
    """Say whether a branch may hold at a distance from ``least`` to ``most`` tokens; negative is to the left.

    Args:
        branch: The branch.
        layout: Where positions are given, their distances are not known here, and any branch may hold.
        least: Smallest difference of indices, key minus query.
        most: Largest difference.
    """
    return not layout.consecutive or (branch.min_distance <= most and branch.max_distance >= least)


def distances(query_idx: Tensor, key_idx: Tensor, layout: SequenceLayout) -> Tensor:
    """Say how far to the right of each query each key stands, in positions.

    Args:
        query_idx: (B|1, …) int64 indices in the row, which broadcast against those of the keys.
        key_idx: (B|1, …) int64.
        layout: Padding, documents and positions of the batch.

    Returns:
        (B|1, …) int64, negative to the left.
    """
    if layout.consecutive:
        return key_idx - query_idx
    return look_up(layout.position_ids, key_idx) - look_up(layout.position_ids, query_idx)


def holding(placed: list[Placed], distance: Tensor) -> list[Tensor]:
    """Say where each branch but the first holds.

    Args:
        placed: The branches.
        distance: (…, Lq, Lk) int64, key minus query.

    Returns:
        (…, Lq, Lk) bool each.
    """
    return [one.branch.holds_at(distance) for one in placed[1:]]


def merged(placed: list[Placed], holds: list[Tensor]) -> Tensor:
    """Multiply queries with keys, each pair in the branch that holds at its distance.

    Args:
        placed: Branches with queries (…, Lq, D) and keys (…, Lk, D).
        holds: (…, Lq, Lk) bool for each branch but the first.

    Returns:
        (…, Lq, Lk) float32.
    """
    score = product(placed[0].query, placed[0].key)
    for one, here in zip(placed[1:], holds, strict=True):
        score = torch.where(here, product(one.query, one.key), score)
    return score


def by_distance(score: Tensor, query_idx: Tensor, key_idx: Tensor, temperature: Tensor, plan: AttentionPlan) -> Tensor:
    """Multiply by the gain and add τ · bias, where the method has them.

    Args:
        score: (B, …, Lq, Lk), τ · similarity.
        query_idx: (B|1, …, Lq, 1) int64.
        key_idx: (1, …, 1, Lk) int64.
        temperature: (B|1, …, Lq, 1), τ.
        plan: The method's plan.

    Returns:
        (B, …, Lq, Lk) float32.
    """
    position = plan.position
    if not (position.biased or position.gained):
        return score
    farthest = plan.layout.length - 1 if plan.layout.consecutive else None
    distance = distances(query_idx, key_idx, plan.layout)  # (B|1, …, Lq, Lk)
    if position.gained:
        score = score * position.gain(distance, farthest)
    return score + position.bias(distance, farthest) * temperature if position.biased else score


def weigh(score: Tensor, visible: Tensor | None, num_visible_keys: Tensor, normalizer: Normalizer) -> Tensor:
    """Turn scores into weights.

    Args:
        score: (B, …, Lq, Lk) float32.
        visible: (B|1, …, Lq, Lk) bool, or None if every key is seen.
        num_visible_keys: (B|1, …, Lq) int64, n.
        normalizer: The method's.

    Returns:
        (B, …, Lq, Lk) float32, zeros for a query that sees no key.
    """
    if visible is not None:
        # A finite floor instead of −∞ keeps a query that sees nothing (and its gradient) from becoming NaN.
        score = _fill(score, ~visible, torch.finfo(score.dtype).min)
    weights = normalizer.weights(score, num_visible_keys)
    if weights.device.type == "cpu":
        # A matrix product over denormal weights, which sharp scores leave, is up to 50 times slower on some processors.
        weights = F.threshold(weights, NEGLIGIBLE, 0.0, inplace=not weights.requires_grad)
    return weights if visible is None else _fill(weights, num_visible_keys[..., None] == 0, 0.0)


def _fill(x: Tensor, here: Tensor, number: float) -> Tensor:
    """Write a number where ``here`` says; without a copy where no gradient needs what was there."""
    return x.masked_fill(here, number) if x.requires_grad else x.masked_fill_(here, number)


def drop(weights: Tensor, probability: float) -> Tensor:
    """Drop weights at random, and make up for it in the others.

    Args:
        weights: (…) of any shape.
        probability: With which a weight is dropped; 0 does nothing.

    Returns:
        (…) like ``weights``.
    """
    return F.dropout(weights, probability) if probability else weights


def operand_dtype(device: torch.device) -> torch.dtype:
    """Choose in which dtype queries and keys are multiplied; their sums are float32 in any case.

    bfloat16 on a GPU under its autocast, where a float32 product runs at a thirteenth of the rate. float32 otherwise,
    in the user's ``float32_matmul_precision``. What rounding costs, in nats, is in docs/measuring.md.

    Args:
        device: Where they are.
    """
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.get_autocast_dtype("cuda") is torch.bfloat16 else torch.float32


def product(query: Tensor, key: Tensor) -> Tensor:
    """Multiply queries and keys.

    Args:
        query: (…, Lq, D) float32.
        key: (…, Lk, D) float32, of which several blocks of queries may share one.

    Returns:
        (…, Lq, Lk) float32.
    """
    if operand_dtype(query.device) is torch.bfloat16:
        key = key.expand(*query.shape[:-2], *key.shape[-2:])
        score: Tensor = _RoundedProduct.apply(query.flatten(0, -3), key.flatten(0, -3))
        return score.unflatten(0, query.shape[:-2])
    with torch.autocast(query.device.type, enabled=False):
        return query.float() @ key.float().transpose(-1, -2)


class _RoundedProduct(torch.autograd.Function):
    """bfloat16 operands, float32 sums: ``torch.bmm`` with ``out_dtype``, which has no gradient of its own.

    M matrices of a batch.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor) -> Tensor:
        query, key = query.bfloat16(), key.bfloat16()  # (M, Lq, D), (M, Lk, D)
        ctx.save_for_backward(query, key)
        return _bmm(query, key.transpose(1, 2))  # (M, Lq, Lk)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, key = ctx.saved_tensors
        grad = grad.bfloat16()  # (M, Lq, Lk)
        return _bmm(grad, key), _bmm(grad.transpose(1, 2), query)  # (M, Lq, D), (M, Lk, D)


def _bmm(left: Tensor, right: Tensor) -> Tensor:
    """Multiply batches of bfloat16 matrices to float32."""
    if left.device.type == "cuda":
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())  # the same numbers, where nothing has such a product
