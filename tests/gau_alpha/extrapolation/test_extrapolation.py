"""The evaluation engine against plain loops, and against everything that must not disturb it or be disturbed by it."""

import math
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import (
    EvaluationOptions,
    ExtrapolationEngine,
    ExtrapolationResult,
    MaskedTokens,
    Status,
    preserve_training_state,
)
from gau_alpha.extrapolation.distributed import is_out_of_memory, shard_batches
from gau_alpha.extrapolation.evaluate_length import PeakMemory, smaller_and_smaller
from gau_alpha.extrapolation.spans import MaskedExample
from gau_alpha.extrapolation.statistics import DocumentSums, interval, resampled_ratios
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import AttentionSinks, Full, LMInfinite, Window
from gau_alpha.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=40, mask_id=1, pad_id=0, special_ids=(2, 3))


def documents(*num_tokens: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(4, 40, size=count) for seed, count in enumerate(num_tokens)]


def sparse_document(seed: int, num_tokens: int, num_ordinary: int) -> np.ndarray:
    """A document that is a special token but for a few places."""
    rng = np.random.default_rng(seed)
    tokens = np.full(num_tokens, 3)
    tokens[rng.permutation(num_tokens)[:num_ordinary]] = rng.integers(4, 40, size=num_ordinary)
    return tokens


class Scripted(GAUAlphaForMaskedLM):
    """The real model, which notes how it is called and may be told to fail."""

    def __init__(self):
        super().__init__(
            GAUAlphaConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=24,
                attention_key_size=8,
                num_hidden_layers=2,
                initializer_range=0.5,
            )
        )
        self.script = None
        self.calls = []

    def forward(self, input_ids, target_positions=None, observer=None, **kwargs):
        self.calls.append((*input_ids.shape, getattr(self.kernel, "block_size", None)))
        if self.script is not None:
            self.script(self, input_ids)
        return super().forward(input_ids, target_positions=target_positions, observer=observer, **kwargs)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Scripted()


def engine(docs, train_length=8, **kwargs):
    options = EvaluationOptions(**{"num_resamples": 50, **kwargs})
    return ExtrapolationEngine(docs, VOCABULARY, train_length, options)


# What a fast row and a slow one may differ in.
UNTIMED = {"seconds": None, "tokens_per_second": None, "peak_memory_bytes": None}


def untimed(rows) -> list[ExtrapolationResult]:
    return [replace(row, **UNTIMED) for row in rows]


# ---- against plain loops ----


def brute_force(model, method, docs, length, seed):
    """Loss, accuracy and entropy target by target and query by query, in float64, without the engine."""
    total_loss, total_correct, total_targets, entropies, per_document = 0.0, 0, 0, [], []
    own = model.kernel
    model.kernel = type(GAUAlphaForMaskedLM(model.config, kernel="reference").kernel)()
    for index, document in enumerate(docs):
        tokens = [int(token) for token in document[:length]]
        ordinary = [place for place, token in enumerate(tokens) if token not in VOCABULARY.special_ids]
        words = np.random.Philox(key=[seed, 0], counter=[0, length, index, 0]).random_raw(len(ordinary))
        count = max(1, round(0.15 * len(ordinary)))
        hidden = sorted(place for _, place in sorted(zip(words.tolist(), ordinary, strict=True))[:count])
        masked = [VOCABULARY.mask_id if place in hidden else token for place, token in enumerate(tokens)]

        def observer(layer, weights, query_index, key_index, entropy, sink):
            for row in weights[0, 0].double().tolist():
                entropies.append(-sum(a * math.log(a) for a in row if a > 0))

        with torch.no_grad(), model.using(method):
            logits = GAUAlphaForMaskedLM.forward(model, torch.tensor([masked]), observer=observer)[0].double()
        document_loss = 0.0
        for place in hidden:
            row = logits[place].tolist()
            largest = max(row)
            document_loss += largest + math.log(sum(math.exp(x - largest) for x in row)) - row[tokens[place]]
            total_correct += row.index(largest) == tokens[place]
        total_loss += document_loss
        total_targets += count
        per_document.append(document_loss / count)
    model.kernel = own
    return {
        "loss": total_loss / total_targets,
        "accuracy": total_correct / total_targets,
        "attention_entropy": sum(entropies) / len(entropies),
        "num_targets": total_targets,
        "mean of means": sum(per_document) / len(per_document),
    }


def test_agrees_with_plain_loops_on_documents_of_very_different_weight(model):
    model.eval()
    docs = [sparse_document(0, 160, 20), sparse_document(1, 160, 60), *documents(170)]
    methods = {
        "softmax": model.method,
        "infoscale": AttentionMethod(scaling=InfoScale(train_length=40)),
        "window": AttentionMethod(visibility=Window(radius=5)),
    }
    rows = list(engine(docs, 40, length_ratios=[1, 4], seed=7).evaluate(model, methods))
    assert [(row.method, row.length) for row in rows] == [(name, n) for n in (40, 160) for name in methods]
    for row in rows:
        expected = brute_force(model, methods[row.method], docs, row.length, seed=7)
        assert row.status is Status.OK
        assert row.loss == pytest.approx(expected["loss"], rel=1e-6)
        assert row.perplexity == pytest.approx(math.exp(expected["loss"]), rel=1e-5)
        assert row.accuracy == pytest.approx(expected["accuracy"], rel=1e-12)
        assert row.attention_entropy == pytest.approx(expected["attention_entropy"], rel=1e-5)
        assert row.num_targets == expected["num_targets"]
        assert row.num_documents == 3
        # The case is one in which averaging documents would have been noticed.
        assert abs(row.loss - expected["mean of means"]) > 1e-3 * row.loss
    assert rows[3].num_targets == 3 + 9 + 24


@pytest.mark.slow
def test_neither_batches_nor_budgets_nor_blocks_change_a_result(model):
    length = 2700
    docs = [sparse_document(seed, length, ordinary) for seed, ordinary in enumerate((20, 333, 2667))]
    results = []
    for tokens_per_batch, block_size in [(1, 256), (2 * length, 256), (3 * length, 7), (10**6, 64)]:
        model.kernel.block_size = block_size
        model.calls.clear()
        methods = {"own": model.method}
        one = engine(docs, length, length_ratios=[1], tokens_per_batch=tokens_per_batch)
        assert [len(each.positions) for each in one.spans.examples(length)] == [3, 50, 400]
        results += one.evaluate(model, methods)
        rows = [call[0] for call in model.calls]
        assert rows == {1: [1, 1, 1], 2 * length: [2, 1], 3 * length: [3], 10**6: [3]}[tokens_per_batch]
    for row in results:
        assert row.num_targets == 453
        for name in ("loss", "perplexity", "accuracy", "attention_entropy", "loss_low", "perplexity_high"):
            assert getattr(row, name) == pytest.approx(getattr(results[0], name), rel=1e-5)


def test_a_logit_gap_of_150_is_finite(model):
    docs = documents(64, 64)

    def logits(input_ids, target_positions=None, observer=None):
        out = torch.zeros(*target_positions.shape, 40)
        out[..., 5] = 150.0
        return out

    model.forward = logits
    docs[0][docs[0] == 5] = 6
    docs[1][:] = 5
    (row,) = engine(docs, 64, length_ratios=[1], entropy=False, distances=False).evaluate(model, {"own": model.method})
    assert row.status is Status.OK
    assert row.loss == pytest.approx(75.0, rel=1e-6)
    assert row.perplexity == pytest.approx(math.exp(75.0), rel=1e-4)
    assert row.accuracy == 0.5
    assert row.attention_entropy is None


def test_sums_stay_float64_under_bfloat16(model):
    docs = documents(*[64] * 40)
    with torch.autocast("cpu", torch.bfloat16):
        (row,) = engine(docs, 64, length_ratios=[1]).evaluate(model, {"own": model.method})
    (exact,) = engine(docs, 64, length_ratios=[1]).evaluate(model, {"own": model.method})
    assert row.loss != exact.loss, "autocast had no effect: nothing was tested"
    assert row.loss == pytest.approx(exact.loss, rel=0.05)
    total = row.loss * row.num_targets
    assert np.float64(np.float32(total)) != total, "a float32 sum would look like this"


# ---- masks ----


def test_masks_are_a_pure_function_of_seed_document_and_length():
    protocol = MaskedTokens()
    tokens = documents(300)[0]
    state = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist()  # noqa: NPY002

    def chosen(document=3, length=200, seed=5):
        return protocol.targets(tokens[:length], document, seed, VOCABULARY.special_ids).positions

    first = chosen()
    for other in (chosen(document=4), chosen(seed=6), chosen(length=201)):
        assert first.tolist() != other.tolist()
    assert first.tolist() == chosen().tolist()
    assert state == (np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist())  # noqa: NPY002
    # Pinned: a table printed today can be compared with one printed after an upgrade of numpy.
    assert protocol.targets(tokens[:20], 0, 0, VOCABULARY.special_ids).positions.tolist() == [[8, 14, 17]]


def test_masks_hide_fifteen_percent_of_the_ordinary_tokens_evenly():
    protocol = MaskedTokens()
    tokens = np.full(100, 10)
    tokens[:20] = 2  # special
    counts = np.zeros(100)
    for document in range(2000):
        (positions,) = protocol.targets(tokens, document, 0, VOCABULARY.special_ids).positions
        assert len(positions) == 12
        assert (np.diff(positions) > 0).all()
        counts[positions] += 1
    assert (counts[:20] == 0).all()
    # Binomial with mean 300 and standard deviation 16: five of them.
    assert np.abs(counts[20:] - 300).max() < 80


def test_at_least_one_target_and_none_in_a_document_without_ordinary_tokens(model):
    assert MaskedTokens().targets(np.array([2, 9]), 0, 0, (2,)).positions.tolist() == [[1]]
    assert MaskedTokens().targets(np.array([2, 3]), 0, 0, (2, 3)).positions.shape[0] == 0
    docs = [np.full(8, 3), *documents(8)]
    (row,) = engine(docs, length_ratios=[1]).evaluate(model, {"own": model.method})
    assert (row.num_documents, row.num_targets) == (1, 1)
    (row,) = engine(docs[:1], length_ratios=[1]).evaluate(model, {"own": model.method})
    assert row.status is Status.NO_DOCUMENTS


def test_input_hides_the_targets_and_nothing_else():
    docs = documents(50, 40)
    one = engine(docs, 32, length_ratios=[1])
    input_ids, positions, labels = one.spans.batch(one.spans.examples(32), 32)
    original = np.stack([document[:32] for document in docs])
    assert (np.take_along_axis(input_ids, positions, 1) == VOCABULARY.mask_id).all()
    assert (np.take_along_axis(original, positions, 1) == labels).all()
    assert (input_ids != original).sum() == labels.size == 10
    assert (docs[0] != VOCABULARY.mask_id).all(), "the documents themselves stay as they are"


@pytest.mark.parametrize("rate", [0.0, 1.5, -1.0])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"rate=.* above 0 and at most 1"):
        MaskedTokens(rate)


# ---- which documents ----


def test_short_documents_are_left_out_and_counted(model):
    rows = list(engine(documents(8, 100, 31, 33, 64)).evaluate(model, {"own": model.method}))
    assert {row.length_ratio: (row.num_documents, row.num_short_documents, row.status.value) for row in rows} == {
        1: (5, 0, "ok"),
        2: (4, 1, "ok"),
        4: (3, 2, "ok"),
        8: (2, 3, "ok"),
        16: (0, 5, "no documents"),
        32: (0, 5, "no documents"),
        64: (0, 5, "no documents"),
    }
    assert all(row.loss is None and row.seconds is None for row in rows if row.status is Status.NO_DOCUMENTS)


def test_max_documents_takes_the_first_that_are_long_enough():
    one = engine(documents(8, 100, 31, 33, 64), max_documents=2)
    assert one.spans.selected(8).tolist() == [0, 1]
    assert one.spans.selected(32).tolist() == [1, 3]
    assert one.spans.num_short(32) == 2
    # A document keeps its masks whatever else is measured with it.
    positions = {
        one.document: one.positions.tolist() for one in engine(documents(8, 100, 31, 33, 64)).spans.examples(32)
    }
    assert {one.document: one.positions.tolist() for one in one.spans.examples(32)} == {
        key: positions[key] for key in (1, 3)
    }


def test_real_tokens_of_a_row_are_as_many_as_the_ratio_says(model):
    list(engine(documents(600), length_ratios=[64]).evaluate(model, {"own": model.method}))
    assert [call[:2] for call in model.calls] == [(1, 512)]


def test_no_document_long_enough_for_any_length():
    with pytest.raises(ValueError, match=r"longest of 2 has 30 tokens, 32 are needed"):
        engine(documents(30, 20), length_ratios=[4, 8])
    with pytest.raises(ValueError, match="longest of 0 has 0 tokens"):
        engine([])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"length_ratios": []}, r"length_ratios must be one or more .* got \[\]"),
        ({"length_ratios": [0, 1]}, "Each of length_ratios must be at least 1, got 0"),
        ({"train_length": 0}, "train_length must be at least 1, got 0"),
        ({"max_documents": 0}, "max_documents must be at least 1, got 0"),
        ({"tokens_per_batch": 0}, "tokens_per_batch must be at least 1, got 0"),
        ({"num_resamples": 0}, "num_resamples must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        engine(documents(100), **wrong)


def test_wrong_calls_are_refused_at_once(model):
    one = engine(documents(100))
    with pytest.raises(ValueError, match="methods is empty"):
        one.evaluate(model, {})
    other = ExtrapolationEngine(documents(100), Vocabulary(41, 1, 0), 8)
    with pytest.raises(ValueError, match=r"40 tokens .* 41"):
        other.evaluate(model, {"own": model.method})


# ---- intervals ----


def test_bootstrap_equals_a_plain_loop():
    losses, targets = np.array([3.0, 100.0, 7.0]), np.array([1.0, 50.0, 9.0])
    samples = resampled_ratios(losses, targets, 20, seed=3)
    generator = np.random.Generator(np.random.Philox(key=[3, 0], counter=[0, 0, 3, 0]))
    for sample, drawn in zip(samples, generator.integers(3, size=(20, 3)).tolist(), strict=True):
        assert sample == pytest.approx(sum(losses[i] for i in drawn) / sum(targets[i] for i in drawn), rel=1e-15)
    assert samples.tolist() == resampled_ratios(losses, targets, 20, seed=3).tolist()
    assert samples.tolist() != resampled_ratios(losses, targets, 20, seed=4).tolist()


def test_bootstrap_in_pieces_has_every_resample(monkeypatch):
    losses, targets = np.arange(5.0), np.ones(5)
    whole = resampled_ratios(losses, targets, 17, seed=0)
    monkeypatch.setattr("gau_alpha.extrapolation.statistics._VALUES_AT_ONCE", 20)
    assert resampled_ratios(losses, targets, 17, seed=0).tolist() == whole.tolist()


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(400):
        targets = rng.integers(5, 15, size=60).astype(float)
        losses = targets * rng.exponential(2.0, size=60)
        low, high = interval(resampled_ratios(losses, targets, 400, seed))
        covered += low <= 2.0 <= high
    assert 0.90 <= covered / 400 <= 0.98


def test_differences_are_paired(model):
    """A method that is worse by a little on every document is told apart although documents differ by far more."""
    docs = [np.concatenate([np.full(40 + seed, 4 + seed), np.arange(4, 24)]) for seed in range(12)]
    methods = {"own": model.method, "again": model.method, "sharper": AttentionMethod(scaling=InfoScale(16))}
    rows = list(engine(docs, 16, length_ratios=[2], num_resamples=500).evaluate(model, methods))
    own, again, sharper = rows
    assert (own.baseline, own.loss_difference) == ("", None)
    assert (again.baseline, again.loss_difference, again.loss_difference_low) == ("own", 0.0, 0.0)
    assert sharper.loss_difference == pytest.approx(sharper.loss - own.loss, abs=1e-12)
    assert sharper.loss_difference_low < sharper.loss_difference < sharper.loss_difference_high
    width = sharper.loss_difference_high - sharper.loss_difference_low
    assert width < 0.5 * (sharper.loss_high - sharper.loss_low)


def test_few_documents_are_noted_and_one_has_no_interval(model):
    few, one = engine(documents(16, 8, 8), length_ratios=[1, 2]).evaluate(model, {"own": model.method})
    assert few.loss_low < few.loss < few.loss_high
    assert few.perplexity_low == pytest.approx(math.exp(few.loss_low))
    assert few.accuracy_low <= few.accuracy <= few.accuracy_high
    assert "only 3 documents" in few.note
    assert (one.loss_low, one.loss_high, one.perplexity_low, one.accuracy_high) == (None,) * 4
    assert one.note == "1 document: no interval"


def test_another_similarity_than_the_trained_one_is_noted(model):
    methods = {
        "own": model.method,
        "infoscale": AttentionMethod(scaling=InfoScale(8)),
        "cosscale": AttentionMethod(CosScale(4.0)),
    }
    rows = list(engine(documents(*[8] * 10), length_ratios=[1]).evaluate(model, methods))
    assert ["similarity overridden" in row.note for row in rows] == [False, False, True]


# ---- what goes wrong ----


def test_a_loss_that_is_not_finite_is_reported_and_never_averaged(model):
    def spoil(input_ids, target_positions=None, observer=None):
        logits = GAUAlphaForMaskedLM.forward(model, input_ids, target_positions=target_positions, observer=observer)
        if input_ids.shape[1] == 16:
            logits[-1] = math.nan
        return logits

    model.forward = spoil
    rows = list(
        engine(documents(40, 40), length_ratios=[1, 2, 4]).evaluate(model, {"own": model.method, "b": model.method})
    )
    assert [row.status.value for row in rows] == ["ok", "ok", "not finite", "not finite", "ok", "ok"]
    spoilt = rows[2]
    assert (spoilt.loss, spoilt.perplexity, spoilt.accuracy, spoilt.loss_low) == (None,) * 4
    assert spoilt.num_targets > 0
    assert rows[3].loss_difference is None
    assert rows[5].loss_difference == 0.0


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_rows_then_blocks_then_gives_up(model, error):
    def script(model, input_ids):
        if input_ids.shape[1] >= 64:
            raise error

    model.script = script
    model.kernel.block_size = 64
    own = model.method
    window = AttentionMethod(visibility=Window(radius=4))
    docs = documents(*[300] * 4)
    rows = list(engine(docs, length_ratios=[1, 4, 8, 16, 32]).evaluate(model, {"own": own, "window": window}))
    assert [row.status.value for row in rows] == ["ok"] * 4 + ["out of memory"] * 6
    assert rows[4].loss is None
    tried = [call for call in model.calls if call[1] == 64]
    assert tried == [(4, 64, 64), (2, 64, 64), (1, 64, 64), (1, 64, 32), (1, 64, 16)] * 2
    assert not any(call[1] > 64 for call in model.calls), "longer lengths are not tried"
    assert model.kernel.block_size == 64
    assert model.method is own


class Little(TorchDispatchMode):
    """Memory for tensors of so many elements."""

    def __init__(self, most):
        super().__init__()
        self.most = most
        self.refused = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.numel() > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out


@pytest.mark.parametrize("visibility", [Full(), Window(32), AttentionSinks(32, 2), LMInfinite(32, 2)], ids=repr)
@pytest.mark.parametrize("watched", [True, False])
def test_smaller_blocks_need_less_memory_whatever_is_visible(model, visibility, watched):
    method = AttentionMethod(visibility=visibility)
    one = engine(documents(256), length_ratios=[32], entropy=watched, distances=watched)
    model.kernel.block_size = 256
    (expected,) = one.evaluate(model, {"it": method})
    with Little(20_000) as memory:  # the scores of 256 queries are 65,536, or 24,576 with the 96 keys around 32 of them
        (row,) = one.evaluate(model, {"it": method})
    assert memory.refused, "nothing ran out: nothing was tested"
    assert row.status is Status.OK
    assert row.loss == pytest.approx(expected.loss, rel=1e-5)


def test_smaller_batches_give_the_result_that_large_ones_could_not(model):
    docs = documents(*[70] * 6)
    expected = list(engine(docs, length_ratios=[8]).evaluate(model, {"own": model.method}))
    model.calls.clear()
    model.script = lambda model, input_ids: too_much(len(model.calls) == 3)
    rows = list(engine(docs, length_ratios=[8], tokens_per_batch=128).evaluate(model, {"own": model.method}))
    assert [call[0] for call in model.calls] == [2, 2, 2, *[1] * 6], "the third failed, then all again, one by one"
    assert rows[0].loss == pytest.approx(expected[0].loss, rel=1e-6)
    assert rows[0].num_targets == expected[0].num_targets


def too_much(yes: bool) -> None:
    if yes:
        raise MemoryError


def test_other_errors_are_not_taken_for_a_lack_of_memory(model):
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
    model.script = lambda model, input_ids: (_ for _ in ()).throw(RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        list(engine(documents(100)).evaluate(model, {"own": model.method}))
    assert len(model.calls) == 1


def test_smaller_and_smaller():
    assert list(smaller_and_smaller(5, None)) == [(5, None), (2, None), (1, None)]
    assert list(smaller_and_smaller(1, 40)) == [(1, 40), (1, 20), (1, 16)]
    assert list(smaller_and_smaller(1, 8)) == [(1, 8)]


# ---- nothing is disturbed ----


def snapshot(model):
    return {
        "modes": [module.training for module in model.modules()],
        "grad": torch.is_grad_enabled(),
        "method": model.method,
        "block": model.kernel.block_size,
        "python": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "weights": [weight.detach().clone().tolist() for weight in model.parameters()],
    }


def draw(model, input_ids):
    """What a careless strategy might do."""
    random.random()
    np.random.rand()  # noqa: NPY002
    torch.rand(1)
    assert not torch.is_grad_enabled()
    assert not any(module.training for module in model.modules()), "evaluated in training mode"


def test_evaluation_leaves_everything_as_it_was(model):
    model.train()
    model.gau_alpha.encoder.layer[0].eval()  # a frozen part
    before = snapshot(model)
    model.script = draw
    new = AttentionMethod(scaling=InfoScale(8))
    for _ in engine(documents(100), length_ratios=[1, 2]).evaluate(model, {"new": new, "own": model.method}):
        assert snapshot(model) == before, "also while a row is in the caller's hands"
    assert len(model.calls) == 4
    assert snapshot(model) == before
    assert new.scaling.training


def test_an_error_leaves_everything_as_it_was(model):
    def script(model, input_ids):
        draw(model, input_ids)
        if input_ids.shape[1] == 16:
            raise KeyError("broken")

    model.train()
    before = snapshot(model)
    model.script = script
    rows = engine(documents(100)).evaluate(model, {"new": AttentionMethod(scaling=InfoScale(8))})
    assert next(rows).status is Status.OK
    with pytest.raises(KeyError, match="broken"):
        next(rows)
    assert snapshot(model) == before


def test_training_state_is_restored_after_an_error(model):
    model.train()
    before = snapshot(model)

    def evaluate():
        with preserve_training_state(model):
            draw(model, None)
            raise KeyError

    with pytest.raises(KeyError):
        evaluate()
    assert snapshot(model) == before


# ---- progress, time and memory ----


def test_progress_grows_to_the_total_in_proportion_to_the_work(model):
    told = []
    docs = documents(*[260] * 6)
    rows = engine(docs, length_ratios=[1, 32], tokens_per_batch=512).evaluate(
        model, {"a": model.method, "b": model.method}, progress=lambda *news: told.append(news)
    )
    assert len(list(rows)) == 4
    done = [news[0] for news in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1] == pytest.approx(2 * 6 * 2 * sum(n * (3 * 16 * 24 + (8 + 24) * n) for n in (8, 256)))
    assert {news[1] for news in told} == {done[-1]}
    assert [news[2] for news in told if "32" in news[2]].count("a × 32") == 4  # three batches and the end


def test_speed_counts_all_tokens(model):
    (row,) = engine(documents(*[100] * 3), length_ratios=[8]).evaluate(model, {"own": model.method})
    assert row.tokens_per_second * row.seconds == pytest.approx(3 * 64)


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is reset through /proc")
def test_peak_memory_forgets_earlier_peaks_and_sees_new_ones():
    memory = PeakMemory(torch.device("cpu"))
    memory.start()
    quiet = memory.read()
    if quiet == 0:
        pytest.skip("this system forbids resetting the high-water mark")
    np.ones(25_000_000)  # 200 MB, freed at once
    loud = memory.read()
    assert loud - quiet > 150e6
    memory.start()
    assert memory.read() < loud - 150e6


# ---- processes ----


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(("num_examples", "rows"), [(1, 1), (7, 2), (12, 4), (5, 100)])
def test_every_example_goes_to_one_process_and_the_same_number_of_batches_to_all(num_examples, rows, world_size):
    hands = [shard_batches(num_examples, rows, rank, world_size) for rank in range(world_size)]
    assert len({len(hand) for hand in hands}) == 1
    counted = sorted(index for hand in hands for one in hand if one.counts for index in one.examples)
    assert counted == list(range(num_examples))
    alone = {one.examples for one in shard_batches(num_examples, rows, 0, 1)}
    assert all(one.examples in alone for hand in hands for one in hand), "a batch is the same whoever runs it"


def test_examples_of_a_document_are_added_in_their_order():
    examples = [
        MaskedExample(4, np.arange(1)),
        MaskedExample(4, np.arange(1), first=False),
        MaskedExample(9, np.arange(2)),
    ]
    sums = DocumentSums.from_examples(np.array([[0.1, 1], [0.2, 0], [5.0, 1]]), examples)
    assert sums.loss.tolist() == [0.1 + 0.2, 5.0]
    assert sums.targets.tolist() == sums.positions.tolist() == [2, 2]
    assert sums.correct.tolist() == [1, 1]
    assert sums.loss_variance.tolist() == [0, 0]
