"""From scores to weights: definitions in float64 loops, gradients, both kernels, and what diagnostics see."""

import math

import numpy as np
import pytest
import slow_attention as slow
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import Blocked, Reference, blocked
from gau_alpha.attention.layout import SequenceLayout, take
from gau_alpha.normalizer import Entmax15, ReLUSquared, SinkSoftmax, Softmax
from gau_alpha.position import ReRoPE, RoPE
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import AttentionSinks, Full, LMInfinite, Window

NORMALIZERS = {
    "softmax": (Softmax(), slow.softmax),
    "sink": (SinkSoftmax(0.7), slow.sink_softmax(np.float32(0.7).item())),
    "off by one": (SinkSoftmax(learned=False), slow.sink_softmax(0.0)),
    "entmax15": (Entmax15(), slow.entmax15),
    "relu squared": (ReLUSquared(), slow.relu_squared),
}
PAIRS = pytest.mark.parametrize(("normalizer", "slowly"), NORMALIZERS.values(), ids=NORMALIZERS)


def hidden_at_random(generator, queries, keys):
    """Scores (queries, keys) float64, and which keys are seen: one at least."""
    score = torch.from_numpy(generator.normal(size=(queries, keys)) * generator.choice([0.1, 1, 5, 100]))
    visible = torch.from_numpy(generator.random((queries, keys)) < 0.7)
    visible[:, generator.integers(keys)] = True
    return score, visible


@PAIRS
def test_weights_equal_float64_loops(normalizer, slowly):
    generator = np.random.default_rng(0)
    for keys in (1, 2, 3, 10, 150):
        score, visible = hidden_at_random(generator, 7, keys)
        hidden = score.masked_fill(~visible, torch.finfo(score.dtype).min)
        found = normalizer.weights(hidden, visible.sum(-1)).detach().numpy()
        for row, (scores, sees) in enumerate(zip(score.numpy(), visible.numpy(), strict=True)):
            np.testing.assert_allclose(found[row][sees], slowly(scores[sees]), rtol=0, atol=1e-10)
            assert not found[row][~sees].any()


def test_entmax_gives_far_keys_nothing_and_even_keys_the_same():
    def weights(*scores):
        return Entmax15().weights(torch.tensor([scores]), torch.tensor([len(scores)]))[0].tolist()

    assert weights(3.0, 1.0, -50.0) == [1.0, 0.0, 0.0], "two nats below the best is too far"
    assert weights(2.0, 2.0, 2.0, 2.0) == [0.25] * 4
    assert weights(1.0, 0.5, -1.9)[2] == 0 < weights(1.0, 0.5, -1.9)[1]


@pytest.mark.parametrize("sharpness", [1e-3, 0.1, 1.0, 3.0])
def test_entmax_over_many_keys_keeps_its_digits_in_float32(sharpness):
    """Sorted sums over 65,536 keys lose digits; the steps behind them bring these back."""
    score = torch.randn(2, 65_536, generator=torch.Generator().manual_seed(0)) * sharpness
    n = torch.full((2,), 65_536)
    single, double = (Entmax15().weights(one, n) for one in (score, score.double()))
    torch.testing.assert_close(single.double().sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-5, rtol=0)
    assert (single - double).abs().max() <= 1e-5 * double.max()


@PAIRS
def test_gradients_are_those_of_differences(normalizer, slowly):
    generator = np.random.default_rng(1)
    score = torch.from_numpy(generator.normal(size=(3, 6))).requires_grad_()
    visible = torch.from_numpy(generator.random((3, 6)) < 0.8)
    visible[:, 0] = True

    def weights(scores):
        hidden = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        return normalizer.weights(hidden, visible.sum(-1))

    assert torch.autograd.gradcheck(weights, score)


def test_the_sinks_logit_learns():
    """Its gradient is that of differences: −A_j · A_sink."""
    normalizer = SinkSoftmax(0.3).double()
    score, n = torch.randn(2, 5, dtype=torch.float64), torch.full((2,), 5)
    upstream = torch.randn(2, 5, dtype=torch.float64)
    (normalizer.weights(score, n) * upstream).sum().backward()
    step = 1e-6
    ends = [
        (SinkSoftmax(normalizer.b.item() + sign * step, learned=False).weights(score, n) * upstream).sum().item()
        for sign in (-1, 1)
    ]
    assert normalizer.b.grad.item() == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-6)


@PAIRS
@pytest.mark.parametrize("seed", range(12))
def test_blocked_equals_reference(normalizer, slowly, seed, monkeypatch):
    """Forward and backward: padding, documents, windows, sinks, branches, selected queries, weights kept or not."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    monkeypatch.setattr(blocked, "RECOMPUTE_FROM", 0 if seed % 2 else 10_000)
    length, batch = int(generator.integers(20, 150)), 2
    mask = torch.arange(length) < torch.from_numpy(generator.integers(0, length + 1, (batch, 1))) if seed % 3 else None
    segments = torch.from_numpy(generator.integers(0, 3, (batch, length))).sort(dim=1).values if seed % 4 > 1 else None
    visibility = (Full(), Window(7), AttentionSinks(5, 3, 12), LMInfinite(4, 6, 12), Full())[seed % 5]
    position = ReRoPE(5, 12) if seed % 5 == 4 else RoPE()
    method = AttentionMethod(CosScale(8.0), InfoScale(16), position, visibility, normalizer)
    plan = method.plan(SequenceLayout.of(length, torch.device("cpu"), mask, segment_ids=segments), 16)
    inputs = [torch.randn(batch, length, width, requires_grad=True) for width in (16, 16, 24)]
    learned = [*inputs, *method.parameters()]
    at = torch.from_numpy(generator.integers(0, length, (batch, 9))) if seed % 2 else None
    upstream = torch.randn(batch, length if at is None else 9, 24)
    results = []
    for kernel in (Reference(), Blocked(int(generator.integers(1, length)))):
        out = kernel(*inputs, plan, at)
        results.append([out, *torch.autograd.grad(out, learned, upstream)])
    for ours, expected in zip(*results, strict=True):
        assert (ours - expected).abs().max() <= 2e-5 * max(1.0, expected.abs().max().item())


@PAIRS
def test_what_is_computed_again_is_dropped_alike(normalizer, slowly, monkeypatch):
    plan = AttentionMethod(normalizer=normalizer).plan(SequenceLayout.of(64, torch.device("cpu")), 8)
    query, key = torch.randn(2, 3, 64, 8).unbind()
    results = []
    for least in (10_000, 0):
        monkeypatch.setattr(blocked, "RECOMPUTE_FROM", least)
        value = torch.ones(3, 64, 5, requires_grad=True)
        torch.manual_seed(0)
        out = Blocked(10)(query, key, value, plan, dropout=0.25)
        results.append((out, torch.autograd.grad(out.square().sum(), value)[0]))
    for again, kept in zip(results[1], results[0], strict=True):
        assert torch.equal(again, kept)
    assert not torch.equal(results[0][0], Blocked(10)(query, key, value, plan)), "something was dropped"


@PAIRS
@pytest.mark.parametrize("visibility", [Full(), Window(6), AttentionSinks(4, 3, 8)], ids=repr)
@pytest.mark.parametrize("kernel", [Reference(), Blocked(5), Blocked(64)], ids=["reference", "blocked 5", "blocked 64"])
def test_diagnostics_see_weights_over_their_sum(normalizer, slowly, visibility, kernel):
    """Shares, their entropy and the sink's share, against loops; the middle row sees nothing."""
    length = 30
    mask = torch.arange(length) < torch.tensor([[length], [0], [17]])
    plan = AttentionMethod(visibility=visibility, normalizer=normalizer).plan(
        SequenceLayout.of(length, mask.device, mask), 8
    )
    query, key, value = torch.randn(3, 3, length, 8).unbind()
    share, entropy, sink = torch.zeros(3, length, length), torch.zeros(3, length), torch.zeros(3, length)

    def observe(blocks, queries, keys, entropies, sinks):
        for number in range(blocks.shape[1]):
            for place, i in enumerate(queries[0, number].tolist()):
                for column, j in enumerate(keys[0, number].tolist()):
                    if i < length and 0 <= j < length:
                        share[:, i, j] += blocks[:, number, place, column]
                if entropies is not None and i < length:
                    entropy[:, i] += entropies[:, number, place]
                if sinks is not None and i < length:
                    sink[:, i] += sinks[:, number, place]
                if sinks is not None and i >= length:
                    assert not sinks[:, number, place].any(), "a place behind the row has no share"

    with torch.no_grad():
        kernel(query, key, value, plan, observer=observe)
        everything = value.new_zeros(3, length, length) + torch.eye(length)
        weights = kernel(query, key, everything, plan).double().numpy()  # values that show the weights
    for row in range(3):
        for i in range(length):
            total = weights[row, i].sum()
            expected = weights[row, i] / total if total else weights[row, i]
            np.testing.assert_allclose(share[row, i].numpy(), expected, atol=1e-5)
            by_hand = -sum(a * math.log(a) for a in expected if a > 0)
            assert entropy[row, i].item() == pytest.approx(by_hand, abs=1e-4)
            sees = plan.num_visible_keys[row, i] > 0
            left = 1 - total if isinstance(normalizer, SinkSoftmax) and sees else 0
            assert sink[row, i].item() == pytest.approx(left, abs=1e-5)


def test_every_layer_learns_a_logit_of_its_own():
    torch.manual_seed(0)
    method = AttentionMethod(normalizer=SinkSoftmax(0.5))
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(20, 16, 32, 8, 3), method)
    names = [name for name in model.state_dict() if name.endswith("normalizer.b")]
    assert len(names) == 3
    model(torch.randint(20, (2, 9))).logsumexp(-1).sum().backward()
    grads = [model.get_parameter(name).grad.item() for name in names]
    assert len(set(grads)) == 3
    assert all(grads)
    with model.using(model.method.replace(scaling=InfoScale(4))):
        assert [block.gau.method.normalizer.b is model.get_parameter(name) for block, name in zip(
            model.gau_alpha.encoder.blocks(), names, strict=True
        )] == [True] * 3  # fmt: skip
    fixed = GAUAlphaForMaskedLM(model.config, AttentionMethod(normalizer=SinkSoftmax(learned=False)))
    assert fixed.state_dict().keys() == GAUAlphaForMaskedLM(model.config).state_dict().keys()


@PAIRS
def test_folders_keep_the_normalizer(normalizer, slowly, tmp_path):
    torch.manual_seed(0)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(20, 16, 32, 8, 2), AttentionMethod(normalizer=normalizer)).eval()
    model.save_pretrained(tmp_path)
    again = GAUAlphaForMaskedLM.from_pretrained(tmp_path)
    assert again.method.describe() == model.method.describe()
    ids = torch.randint(20, (2, 9))
    assert torch.equal(again(ids), model(ids))
    says = '"normalization": "softmax"' in (tmp_path / "config.json").read_text()
    assert says == isinstance(normalizer, Softmax), "the published names know no other"


def test_a_few_queries_of_a_window_are_those_among_all():
    method = AttentionMethod(visibility=Window(3), normalizer=ReLUSquared())
    plan = method.plan(SequenceLayout.of(40, torch.device("cpu")), 8)
    query, key, value = torch.randn(3, 2, 40, 8).unbind()
    at = torch.tensor([[0, 5, 39], [7, 7, 20]])
    torch.testing.assert_close(
        Blocked(4)(query, key, value, plan, at), take(Reference()(query, key, value, plan), at), atol=1e-6, rtol=0
    )


def test_a_logit_that_is_no_number_is_refused():
    for wrong in (math.nan, math.inf, "1", None):
        with pytest.raises(ValueError, match="logit must be"):
            SinkSoftmax(wrong)
