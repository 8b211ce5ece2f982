"""Measures, per layer and length, the temperature that restores attention entropy.

Entropy falls as τ grows, so there is one τ at which the mean over queries equals its value at the training length.
Layers are solved one after the other, each on what the calibrated layers below it make of the text: what a layer sees
at a length is what it will see when the table is used. Unlabelled text is all it takes.

B rows, L tokens of a row, Q sampled queries of a document, T of them in a row, D key size, K layers, M lengths.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gau_alpha.attention.kernels import Blocked
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.method import AttentionMethod, AttentionPlan
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.extrapolation.evaluate_length import preserve_training_state
from gau_alpha.extrapolation.options import require_ratios
from gau_alpha.extrapolation.protocols import MaskedTokens, philox
from gau_alpha.extrapolation.spans import document_fingerprint
from gau_alpha.model import GAUAlphaForMaskedLM, GAUBlock
from gau_alpha.scaling import CalibratedScale
from gau_alpha.untrusted.limits import require_whole
from gau_alpha.vocabulary import Vocabulary

PRECISION = 5e-4
"""A τ is good enough if the entropy is as wanted up to this share of it."""

FARTHEST = 64.0
"""How many times larger or smaller than in training τ may become."""

_MOST_SECANTS = 60  # a smooth function takes about five
_TOKENS_AT_ONCE = 16384
_QUERY_STREAM = 2  # other words of the generator than masked positions (0) and spans (1) take


def calibrate(
    model: GAUAlphaForMaskedLM,
    documents: Sequence[np.ndarray],
    vocabulary: Vocabulary,
    train_length: int,
    *,
    method: str,
    length_ratios: Sequence[int],
    num_documents: int = 16,
    queries_per_document: int = 512,
    seed: int = 0,
    progress: Callable[[float, float, str], None] | None = None,
) -> Calibration:
    """Calibrates a model under the method it has.

    The last documents that are long enough are read; the evaluation leaves them out. Each is cut to the longest length
    and then into rows of each length in turn, so that every length sees the same text, 15 % of it masked.

    Args:
        model: The model, which is as before afterwards.
        documents: Indexable of (tokens,) integers, in a fixed order.
        vocabulary: The ids of their tokenizer.
        train_length: Tokens per training row.
        method: Name of the model's method, for the file.
        length_ratios: Lengths of the table as multiples of ``train_length``; 1 is always among them.
        num_documents: How many documents to read.
        queries_per_document: Queries whose entropy is looked at, the more the more precise. One is drawn from each of
            so many equal pieces of a document, and the same are looked at in rows of every length: a comparison of
            pairs, and of queries from the ends of rows as much as from their middles.
        seed: Of the masked positions.
        progress: Told how far it is: ``progress(done, total, description)``.

    Raises:
        ValueError: If a number is out of range, no document is long enough, the method's visibility hides keys, its
            normalizer gives any temperature the same entropy, or no temperature restores the entropy.
    """
    ratios = calibration_ratios(length_ratios)
    require_whole("queries_per_document", queries_per_document)
    longest = ratios[-1] * train_length
    chosen = calibration_documents(documents, longest, num_documents, seed)
    device = next(model.parameters()).device
    _check_methods({block.gau.method for block in model.gau_alpha.encoder.blocks()}, longest, device)
    tokens = torch.stack(
        [masked(np.asarray(documents[index], np.int64)[:longest], index, vocabulary, seed) for index in chosen]
    ).to(device)  # (documents, longest)
    with preserve_training_state(model):
        queries = np.stack([_drawn(longest, queries_per_document, index, seed) for index in chosen])  # (documents, Q)
        solver = _Solver(model, tokens, train_length, torch.from_numpy(queries).to(device), progress, ratios)
        temperatures, before, after = solver.solve()
    lengths = [ratio * train_length for ratio in ratios]
    return Calibration(
        method=method,
        scale=CalibratedScale(lengths, [[round(tau, 6) for tau in row] for row in temperatures.T.tolist()]),
        provenance={
            "attention_method": model.method.describe(),
            "train_length": train_length,
            "lengths": lengths,
            "entropy_before": before.T.tolist(),
            "entropy_after": after.T.tolist(),
            "queries_per_document": queries_per_document,
            "seed": seed,
            "documents": [document_fingerprint(documents[index]) for index in chosen],
            "torch": str(torch.__version__),
        },
    )


def calibration_ratios(length_ratios: Sequence[int]) -> list[int]:
    """The lengths of a table as multiples of the training length, ascending, 1 among them.

    Args:
        length_ratios: Those that are asked for.

    Raises:
        ValueError: If there is none above 1.
    """
    require_ratios(length_ratios)
    ratios = sorted({1, *length_ratios})
    if len(ratios) < 2:
        raise ValueError(f"length_ratios={list(length_ratios)} must hold whole numbers above 1.")
    return ratios


def calibration_documents(documents: Sequence[np.ndarray], longest: int, num_documents: int, seed: int) -> list[int]:
    """Places of the documents that are read: the last that are long enough.

    Args:
        documents: Indexable of (tokens,) integers.
        longest: Tokens of the longest length.
        num_documents: At most so many.
        seed: Of what is drawn in them.

    Raises:
        ValueError: If none is long enough, or a number is out of range.
    """
    require_whole("num_documents", num_documents)
    require_whole("seed", seed, least=0, most=2**64 - 1)
    long_enough = [index for index in range(len(documents)) if len(documents[index]) >= longest]
    if not long_enough:
        most = max((len(documents[index]) for index in range(len(documents))), default=0)
        raise ValueError(
            f"No document has the {longest} tokens of the longest length; the longest has {most}. Ask for smaller "
            f"length_ratios; between and beyond them temperatures are interpolated."
        )
    return long_enough[-num_documents:]


def _check_methods(methods: set[AttentionMethod], length: int, device: torch.device) -> None:
    """Refuse methods of layers under which no temperature restores an entropy at a length."""
    require_all_keys(methods, length, device)
    for method in methods:
        if not method.normalizer.has_entropy_by_temperature:
            raise ValueError(
                f"Under {method.normalizer!r} attention has the same entropy at any temperature: there is nothing to "
                f"calibrate."
            )


def require_all_keys(methods: set[AttentionMethod], length: int, device: torch.device) -> None:
    """Refuse methods of layers under which the number of visible keys does not grow with the length.

    Args:
        methods: Of layers.
        length: Tokens of a row.
        device: That of the model.

    Raises:
        ValueError: If a query does not see all keys.
    """
    for method in methods:
        seen = method.visibility.num_visible_keys(SequenceLayout.of(length, device))
        if not bool((seen == length).all()):
            raise ValueError(
                f"{method.visibility!r} lets a query see at most {int(seen.max())} of {length} keys, so entropy does "
                f"not grow with the length: there is nothing to calibrate."
            )


class _Solver:
    """Finds temperatures, length by length and layer by layer."""

    def __init__(
        self,
        model: GAUAlphaForMaskedLM,
        tokens: Tensor,
        train_length: int,
        queries: Tensor,
        progress: Callable[[float, float, str], None] | None,
        ratios: Sequence[int],
    ) -> None:
        self.model = model
        self.blocks = model.gau_alpha.encoder.blocks()
        self.key_size = model.config.attention_key_size
        self.tokens = tokens
        self.train_length = train_length
        self.queries = queries
        self.progress = progress
        self.ratios = ratios

    def solve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Temperatures, entropies at the temperatures of training, and entropies reached, (M, K) each."""
        total = sum(self.ratios) * len(self.blocks)  # the text is the same at all lengths: cost grows with the keys
        done = 0.0
        temperatures, before, after = (np.zeros((len(self.ratios), len(self.blocks))) for _ in range(3))
        for place, ratio in enumerate(self.ratios):
            layers = self._embedded(ratio * self.train_length)
            for number, block in enumerate(self.blocks):
                trained = tau = _temperature(block, self.train_length, self.key_size)
                layers.enter(block)
                before[place, number] = after[place, number] = layers.entropy(trained)
                if place:
                    tau, after[place, number] = solve(
                        layers.entropy, after[0, number], temperatures[place - 1, number], trained,
                        f"layer {number} at {ratio}× under {block.gau.method.normalizer!r}",
                    )  # fmt: skip
                temperatures[place, number] = tau
                if number < len(self.blocks) - 1:  # nobody reads what the last layer makes of the text
                    layers.leave(block, tau)
                done += ratio
                if self.progress is not None:
                    self.progress(done, total, f"length × {ratio}, layer {number}")
        return temperatures, before, after

    def _embedded(self, length: int) -> "_Layers":
        per_document = self.tokens.shape[1] // length  # a length that does not divide the longest leaves a rest
        rows = self.tokens[:, : per_document * length].reshape(-1, length)  # (B, L)
        whole = self.queries < per_document * length
        document, _ = whole.nonzero(as_tuple=True)
        row = document * per_document + self.queries[whole] // length  # (queries of all documents,)
        place = self.queries[whole] % length
        x = self.model.gau_alpha.embeddings(rows)  # (B, L, H)
        return _Layers(x, *_by_row(row, place, len(rows)), self.key_size, self.model)


def _by_row(row: Tensor, place: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Queries as a rectangle.

    Args:
        row: (N,) the rows of queries, ascending.
        place: (N,) their places there.
        num_rows: B.

    Returns:
        (B, T) places, rows with fewer than T filled up with 0; and (B, T) bool, False where filled up.
    """
    counts = row.bincount(minlength=num_rows)  # (B,)
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    index = row.new_zeros(num_rows, int(counts.max()))  # (B, T)
    real = torch.zeros_like(index, dtype=torch.bool)
    index[row, slot] = place
    real[row, slot] = True
    return index, real


class _Layers:
    """All rows of a length on their way through the layers.

    Args:
        x: (B, L, H), the input of the first layer.
        index: (B, T), places of the queries that are looked at.
        real: (B, T) bool, False where ``index`` only fills up.
        key_size: D.
        model: Gives the kernel.
    """

    def __init__(self, x: Tensor, index: Tensor, real: Tensor, key_size: int, model: GAUAlphaForMaskedLM) -> None:
        rows = max(1, _TOKENS_AT_ONCE // x.shape[1])
        self.x = list(x.split(rows))
        self.queries = list(zip(index.split(rows), real.split(rows), strict=True))
        self.num_queries = int(real.sum())
        self.key_size = key_size
        self.kernel = model.kernel

    def enter(self, block: GAUBlock) -> None:
        """Works out queries and keys of a layer."""
        self.plan = block.gau.method.plan(SequenceLayout.of(self.x[0].shape[1], self.x[0].device), self.key_size)
        self.pairs = [block.gau.query_and_key(x) for x in self.x]  # (B, L, D) each

    def entropy(self, tau: float) -> float:
        """Mean entropy of the layer in nats, over the queries, at a temperature."""
        plan = self._at(tau)
        total = 0.0
        for (query, key), (index, real) in zip(self.pairs, self.queries, strict=True):
            nothing = key.new_zeros(*key.shape[:2], 1)  # values that nobody reads
            blocks: list[Tensor] = []
            Blocked()(query, key, nothing, plan, index, observer=lambda *seen, to=blocks: to.append(seen[3]))
            found = torch.cat(blocks, dim=-1).flatten(0, 1)  # (B, T)
            total += float((found.double() * real).sum())
        return total / self.num_queries

    def leave(self, block: GAUBlock, tau: float) -> None:
        """Applies the layer at a temperature."""
        plan = self._at(tau)
        self.x = [block(x, plan, self.kernel) for x in self.x]

    def _at(self, tau: float) -> AttentionPlan:
        return replace(self.plan, temperature=torch.full_like(self.plan.temperature, tau))


def trained_temperature(model: GAUAlphaForMaskedLM, train_length: int) -> float:
    """The τ of training: a scaling whose layers differ has no single one, and their mean stands for it.

    Args:
        model: The model under its method.
        train_length: Tokens per training row.
    """
    blocks, key_size = model.gau_alpha.encoder.blocks(), model.config.attention_key_size
    return sum(_temperature(block, train_length, key_size) for block in blocks) / len(blocks)


def _temperature(block: GAUBlock, train_length: int, key_size: int) -> float:
    n = torch.full((1, 1), train_length, device=next(block.parameters()).device)
    return float(block.gau.method.scaling.temperature(n, key_size))


def masked(tokens: np.ndarray, document: int, vocabulary: Vocabulary, seed: int) -> Tensor:
    """(L,) tokens of which 15 % of the ordinary ones are masked, as in evaluation.

    Args:
        tokens: (L,) ids.
        document: Place of their document.
        vocabulary: The ids of their tokenizer.
        seed: Of the masked positions.
    """
    targets = MaskedTokens().targets(tokens, document, seed, vocabulary.special_ids)
    hidden = tokens.copy()
    hidden[targets.positions.flatten()] = vocabulary.mask_id
    return torch.from_numpy(hidden)


def _drawn(length: int, count: int, document: int, seed: int) -> np.ndarray:
    """(Q,) int64, ascending: a place from each of ``count`` equal pieces of a document, or all of its places."""
    if count >= length:
        return np.arange(length)
    share = philox(seed, document, length, _QUERY_STREAM).random_raw(count) / 2.0**64  # in [0, 1)
    return ((np.arange(count) + share) * length / count).astype(np.int64)


def solve(
    entropy: Callable[[float], float], wanted: float, start: float, trained: float, where: str
) -> tuple[float, float]:
    """Finds where a falling function of τ takes a value, by the Illinois variant of regula falsi in ln τ.

    (G. Dahlquist and Å. Björck, "Numerical Methods", 1974, section 6.4.) Entropies take long, and a smooth function
    needs a third of the evaluations that bisection does.

    Args:
        entropy: The function.
        wanted: Its value.
        start: Where to begin.
        trained: The τ of training; further than ``FARTHEST`` from it nothing is looked for.
        where: Names the place in an error.

    Returns:
        (τ, entropy there), the entropy within ``PRECISION`` of ``wanted``.

    Raises:
        ValueError: If there is no such τ within reach.
    """

    def excess(at: float) -> float:  # of the entropy, at ln τ
        found = entropy(math.exp(at))
        if not math.isfinite(found):
            raise ValueError(f"The entropy is {found} in {where} at a temperature of {math.exp(at):g}.")
        return found / wanted - 1

    if not wanted > 0:
        raise ValueError(
            f"The entropy to restore in {where} is {wanted} nats: in training its queries look at one key each, and no "
            f"temperature can be compared with that."
        )

    x = math.log(start)
    f = excess(x)
    step = math.copysign(0.25, f)  # too high an entropy asks for a higher τ
    while abs(f) > PRECISION:  # until two ends have the value between them
        if abs(x - math.log(trained)) >= math.log(FARTHEST):
            raise ValueError(
                f"No temperature restores the entropy of {wanted:.3f} nats in {where}: even {math.exp(x):g} does not."
            )
        other, other_f = x, f
        x += step
        f = excess(x)
        step = max(-1.0, min(1.0, 2 * step))
        if f * other_f <= 0:
            break
    for _ in range(_MOST_SECANTS):
        if abs(f) <= PRECISION:
            return math.exp(x), wanted * (1 + f)
        new = x - f * (x - other) / (f - other_f)
        new_f = excess(new)
        if new_f * f <= 0:
            other, other_f = x, f
        else:
            other_f /= 2  # this end has stayed: let the next secant fall on its side
        x, f = new, new_f
    raise ValueError(f"The entropy jumps past {wanted:.3f} nats in {where}, at a temperature of {math.exp(x):g}.")
