"""Where attention goes, against loops over all pairs in float64."""

import math

import numpy as np
import pytest
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import Blocked, Reference
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.extrapolation.diagnostics import AttentionMeter, bin_starts, diagonal_sums, num_bins, num_columns
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import Window
from gau_alpha.vocabulary import Vocabulary


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 3), (2, 7), (7, 2)])
def test_diagonal_sums(rows, columns):
    x = torch.randn(2, rows, columns)
    expected = np.zeros((2, rows + columns - 1))
    for b in range(2):
        for r in range(rows):
            for c in range(columns):
                expected[b, c - r + rows - 1] += float(x[b, r, c])
    np.testing.assert_allclose(diagonal_sums(x).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 64, 65])
def test_bins_hold_every_distance_once(length):
    starts = bin_starts(num_bins(length))
    assert starts == sorted(set(starts))
    assert starts[-1] <= length - 1
    assert length - 1 < 2 * max(1, starts[-1])


def by_hand(weights, train_length):
    """(columns,) of one layer and row: entropy, sink, near share and bins, summed over queries."""
    length = len(weights)
    out = np.zeros(num_columns(length))
    starts = bin_starts(num_bins(length))
    for i in range(length):
        for j in range(length):
            a = float(weights[i, j])
            out[0] -= a * math.log(a) if a > 0 else 0
            out[2] += a if abs(i - j) <= train_length // 2 else 0
            out[3 + max(b for b, start in enumerate(starts) if start <= abs(i - j))] += a
    return out


@pytest.mark.parametrize("kernel", [Reference(), Blocked(7), Blocked(64)])
@pytest.mark.parametrize(
    "method", [AttentionMethod(CosScale(9.0)), AttentionMethod(visibility=Window(5))], ids=["full", "window"]
)
def test_meter_equals_loops(kernel, method):
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, 2, initializer_range=0.5), method).eval()
    model.kernel = kernel
    input_ids = torch.randint(0, 40, (2, 29))
    meter = AttentionMeter(2, 29, train_length=9)
    weights = torch.zeros(2, 2, 29, 29)

    def observe(layer, block, queries, keys, entropy, sink):
        for number in range(block.shape[1]):
            rows, columns = queries[0, number][:, None], keys[0, number][None]
            inside = (rows < 29) & (columns >= 0) & (columns < 29)
            rows, columns = rows.expand_as(inside)[inside], columns.expand_as(inside)[inside]
            weights[:, layer, rows, columns] = block[:, number, inside]
        meter(layer, block, queries, keys, entropy, sink)

    with torch.no_grad():
        model(input_ids, observer=observe)
    for row in range(2):
        for layer in range(2):
            expected = by_hand(weights[row, layer].double().numpy(), 9)
            np.testing.assert_allclose(meter.sums[row, layer].numpy(), expected, rtol=1e-5, atol=1e-4)
            assert expected[3:].sum() == pytest.approx(29, rel=1e-5)


def test_keys_in_several_runs():
    """As with attention sinks: the first keys and those nearby."""
    queries, nearby, sinks = torch.arange(11, 19).view(1, 2, 4), torch.arange(10, 16), torch.arange(3)
    nearby = torch.stack([nearby, nearby + 4])[None]  # (1, 2, 6): two blocks of queries, each with its own keys
    near_weights, sink_weights = torch.rand(1, 2, 4, 6), torch.rand(1, 2, 4, 3)
    meter = AttentionMeter(1, 20, train_length=4)
    meter(0, near_weights, queries, nearby, torch.ones(1, 2, 4), None)
    meter(0, sink_weights, queries, sinks[None, None], None, None)
    whole = np.zeros((20, 20))
    for block in range(2):
        rows = queries[0, block].numpy()[:, None]
        whole[rows, nearby[0, block].numpy()] = near_weights[0, block].numpy()
        whole[rows, sinks.numpy()] = sink_weights[0, block].numpy()
    assert meter.sums[0, 0, 0] == 8
    np.testing.assert_allclose(meter.sums[0, 0, 1:].numpy(), by_hand(whole, 4)[1:], rtol=1e-5)


def test_a_row_has_means_by_layer():
    torch.manual_seed(0)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(40, 16, 24, 8, 2, initializer_range=0.5)).eval()
    docs = [np.random.default_rng(seed).integers(2, 40, size=32) for seed in range(3)]
    options = EvaluationOptions(length_ratios=[4], tokens_per_batch=64)
    engine = ExtrapolationEngine(docs, Vocabulary(40, 1, 0), 8, options)
    sums = np.zeros((2, num_columns(32)))
    for each in engine.spans.examples(32):
        input_ids, _, _ = engine.spans.batch([each], 32)

        def observe(layer, block, *_):
            sums[layer] += by_hand(block[0, 0].double().numpy(), 8)

        model.kernel = Reference()
        with torch.no_grad():
            model(torch.as_tensor(input_ids), observer=observe)
    means = sums / (3 * 32)
    (row,) = engine.evaluate(model, {"own": model.method})
    assert row.layers["attention_entropy"] == pytest.approx(means[:, 0].tolist(), rel=1e-5)
    assert row.layers["near_share"] == pytest.approx(means[:, 2].tolist(), rel=1e-5)
    np.testing.assert_allclose(row.layers["distance_share"], means[:, 3:], rtol=1e-4, atol=1e-6)
    assert row.layers["distance_from"] == [0, 1, 2, 4, 8, 16]
    assert row.attention_entropy == pytest.approx(means[:, 0].mean(), rel=1e-5)
    assert row.effective_keys == pytest.approx(math.exp(means[:, 0].mean()), rel=1e-5)
    assert row.sink_share is None
    assert row.near_share == pytest.approx(means[:, 2].mean(), rel=1e-5)
    options = EvaluationOptions(length_ratios=[4], distances=False)
    entropies_alone = ExtrapolationEngine(docs, Vocabulary(40, 1, 0), 8, options)
    (row,) = entropies_alone.evaluate(model, {"own": model.method})
    assert row.near_share is None
    assert list(row.layers) == ["attention_entropy"]
