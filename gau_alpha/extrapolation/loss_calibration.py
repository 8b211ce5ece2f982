"""Fits, per length, the one temperature of all layers at which the loss at masked tokens is least.

Entropy methods keep what attention was; this asks what predicts best, on text that takes no part in the evaluation. A
temperature serves all layers, so that there is one number to fit per length and none to overfit with.

B rows, L tokens of a row, T targets of a row, V vocabulary, M lengths.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gau_alpha.extrapolation.calibration import LOSS, OBJECTIVE, Calibration
from gau_alpha.extrapolation.calibration_solver import (
    calibration_documents,
    calibration_ratios,
    masked,
    require_all_keys,
    trained_temperature,
)
from gau_alpha.extrapolation.evaluate_length import preserve_training_state
from gau_alpha.extrapolation.spans import document_fingerprint
from gau_alpha.model import GAUAlphaForMaskedLM
from gau_alpha.scaling import CalibratedScale
from gau_alpha.vocabulary import Vocabulary

PRECISION = 0.01
"""A τ is known up to this share of it; the loss is flat around its least."""

FARTHEST = 16.0
"""How many times larger or smaller than in training τ may become."""

_FIRST_STEP = 0.1  # of ln τ
_GOLDEN = (math.sqrt(5) - 1) / 2
_TOKENS_AT_ONCE = 16384


def calibrate_loss(
    model: GAUAlphaForMaskedLM,
    documents: Sequence[np.ndarray],
    vocabulary: Vocabulary,
    train_length: int,
    *,
    method: str,
    length_ratios: Sequence[int],
    num_documents: int = 16,
    seed: int = 0,
    progress: Callable[[float, float, str], None] | None = None,
) -> Calibration:
    """Fits temperatures of a model under the method it has.

    The text is that of ``calibrate``: the last documents that are long enough, which the evaluation leaves out, cut
    into rows of each length in turn, 15 % of it masked. Up to ``train_length`` the temperature stays as it was trained.

    Args:
        model: The model, which is as before afterwards.
        documents: Indexable of (tokens,) integers, in a fixed order.
        vocabulary: The ids of their tokenizer.
        train_length: Tokens per training row.
        method: Name of the model's method, for the file.
        length_ratios: Lengths of the table as multiples of ``train_length``; 1 is always among them.
        num_documents: How many documents to read.
        seed: Of the masked positions.
        progress: Told how far it is: ``progress(done, total, description)``.

    Raises:
        ValueError: If a number is out of range, no document is long enough, the method's visibility hides keys, or a
            loss is not finite.
    """
    ratios = calibration_ratios(length_ratios)
    longest = ratios[-1] * train_length
    chosen = calibration_documents(documents, longest, num_documents, seed)
    device = next(model.parameters()).device
    require_all_keys({block.gau.method for block in model.gau_alpha.encoder.blocks()}, longest, device)
    labels = torch.stack([torch.from_numpy(np.asarray(documents[index], np.int64)[:longest]) for index in chosen])
    tokens = torch.stack(
        [masked(one.numpy(), index, vocabulary, seed) for one, index in zip(labels, chosen, strict=True)]
    )  # (documents, longest)
    text = _Text(tokens.to(device), labels.to(device), (tokens != labels).to(device))
    trained = trained_temperature(model, train_length)
    temperatures, before, after = [trained], [], []
    with preserve_training_state(model):
        for place, ratio in enumerate(ratios):
            length = ratio * train_length

            def loss(tau: float, length: int = length) -> float:
                return _loss(model, text, length, tau)

            before.append(loss(trained))
            if place:
                temperatures.append(minimize(loss, temperatures[-1], trained))
            after.append(loss(temperatures[-1]))
            if progress is not None:
                progress(sum(ratios[: place + 1]), sum(ratios), f"length × {ratio}")
    lengths = [ratio * train_length for ratio in ratios]
    return Calibration(
        method=method,
        scale=CalibratedScale(lengths, [[round(tau, 6) for tau in temperatures]]),
        provenance={
            OBJECTIVE: LOSS,
            "attention_method": model.method.describe(),
            "train_length": train_length,
            "lengths": lengths,
            "loss_before": before,
            "loss_after": after,
            "seed": seed,
            "documents": [document_fingerprint(documents[index]) for index in chosen],
            "torch": str(torch.__version__),
        },
    )


class _Text(NamedTuple):
    """What is read, (documents, longest) each: masked tokens, the tokens themselves, and which are masked."""

    tokens: Tensor
    labels: Tensor
    is_target: Tensor


def _loss(model: GAUAlphaForMaskedLM, text: _Text, length: int, tau: float) -> float:
    """Mean loss in nats over all targets, in rows of a length under one temperature."""
    fit = text.tokens.shape[1] // length * length  # a length that does not divide the longest leaves a rest
    tokens, labels, is_target = (one[:, :fit].reshape(-1, length) for one in text)  # (B, L)
    rows = max(1, _TOKENS_AT_ONCE // length)
    total, count = 0.0, 0
    with model.using(model.method.replace(scaling=CalibratedScale([length], [[tau]]))):
        for some in zip(tokens.split(rows), labels.split(rows), is_target.split(rows), strict=True):
            at = _positions(some[2])  # (B, T)
            logits = model(some[0], target_positions=at)  # (B, T, V)
            losses = F.cross_entropy(logits.flatten(0, 1).float(), some[1].gather(1, at).flatten(), reduction="none")
            real = some[2].gather(1, at).flatten() & _first_of_its_kind(at).flatten()
            total += float(losses.double()[real].sum())
            count += int(real.sum())
    if not math.isfinite(total):
        raise ValueError(f"The loss is {total} in rows of {length} tokens at a temperature of {tau:g}.")
    return total / count


def _positions(is_target: Tensor) -> Tensor:
    """(B, T) places of the targets of each row, ascending; rows with fewer end in their last one."""
    most = max(1, int(is_target.sum(1).max()))
    order = is_target.byte().argsort(dim=1, descending=True, stable=True)[:, :most]  # (B, T), targets first
    last = is_target.sum(1, keepdim=True).clamp_min(1) - 1  # (B, 1)
    slot = torch.minimum(torch.arange(most, device=order.device)[None], last)
    return order.gather(1, slot)


def _first_of_its_kind(at: Tensor) -> Tensor:
    """(B, T) bool, False where a place repeats the one before it."""
    repeats = torch.zeros_like(at, dtype=torch.bool)
    repeats[:, 1:] = at[:, 1:] == at[:, :-1]
    return ~repeats


def minimize(loss: Callable[[float], float], start: float, trained: float) -> float:
    """Find the τ of the least loss: steps that double until it rises, then a golden-section search in ln τ.

    (J. Kiefer, "Sequential minimax search for a maximum", 1953.)

    Args:
        loss: Of a τ.
        start: Where to begin.
        trained: The τ of training; further than ``FARTHEST`` from it nothing is looked for.
    """
    low, high = math.log(trained / FARTHEST), math.log(trained * FARTHEST)
    known: dict[float, float] = {}

    def at(x: float) -> float:
        if x not in known:
            known[x] = loss(math.exp(x))
        return known[x]

    x = math.log(start)
    step = _FIRST_STEP if at(min(high, x + _FIRST_STEP)) < at(x) else -_FIRST_STEP
    before = x
    while True:
        new = min(high, max(low, x + step))
        if new == x or at(new) >= at(x):
            break
        before, x, step = x, new, 2 * step
    left, right = sorted((before if before != x else min(high, max(low, x - step)), new))
    a, b = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
    while right - left > PRECISION:
        if at(a) <= at(b):  # each step keeps one of the two points inside
            right, b = b, a
            a = right - _GOLDEN * (right - left)
        else:
            left, a = a, b
            b = left + _GOLDEN * (right - left)
    return math.exp(min(known, key=lambda one: known[one]))
