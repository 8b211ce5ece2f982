"""Both kernels compute the same, forward and backward; ``blocked`` needs little memory."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from strategy_cases import CASES, KEY_SIZE

from gau_alpha.attention.kernels import Blocked, Reference, band, blocked, build_kernel
from gau_alpha.attention.layout import SequenceLayout, take
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.position import ReRoPE, RoPE, ScaleInvariant
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import AttentionSinks, Full, LMInfinite, Window


def random_visibility(generator):
    radius, sinks, train_length = (int(generator.integers(1, most)) for most in (40, 9, 60))
    return (
        Full(),
        Window(radius),
        AttentionSinks(radius, sinks, train_length),
        LMInfinite(radius, sinks, train_length),
    )[generator.integers(4)]


@pytest.mark.parametrize("seed", range(200))
def test_blocked_equals_reference(seed, monkeypatch):
    """Forward and backward: lengths, padding, documents, visibilities, blocks, selected queries, weights kept."""
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    monkeypatch.setattr(blocked, "RECOMPUTE_FROM", 0 if seed % 2 else 10_000)
    length, batch = int(generator.integers(1, 301)), int(generator.integers(1, 4))
    mask = segments = None
    if seed % 3:
        mask = torch.arange(length) < torch.from_numpy(generator.integers(1, length + 1, (batch, 1)))
    if seed % 4 > 1:
        segments = torch.from_numpy(generator.integers(0, 4, (batch, length))).sort(dim=1).values
    visibility = random_visibility(generator)
    position = ReRoPE(int(generator.integers(1, 12)), 12) if seed % 5 == 0 and isinstance(visibility, Full) else RoPE()
    if seed % 5 == 1 and not isinstance(visibility, AttentionSinks):
        position = ScaleInvariant(4.0)
    method = AttentionMethod(CosScale(8.0), InfoScale(16), position, visibility)
    plan = method.plan(SequenceLayout.of(length, torch.device("cpu"), mask, segment_ids=segments), 16)
    block_size = int(generator.integers(1, length + 20))
    inputs = [torch.randn(batch, length, width, requires_grad=True) for width in (16, 16, 24)]
    at = None
    if generator.integers(2):
        at = torch.from_numpy(generator.integers(0, length, (batch, int(generator.integers(1, length + 1)))))
    upstream = torch.randn(batch, length if at is None else at.shape[1], 24)
    results = []
    for kernel in (Reference(), Blocked(block_size)):
        out = kernel(*inputs, plan, at)
        results.append([out, *torch.autograd.grad(out, inputs, upstream)])
    expected_of_all, *others = results
    for ours, expected in (
        (one, expected) for other in others for one, expected in zip(other, expected_of_all, strict=True)
    ):
        # relative to the largest entry: gradients of 300 summed terms reach 10
        assert (ours - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())


def test_a_query_without_keys_gives_zeros_and_no_nan():
    mask = torch.tensor([[True, True, False, False], [False, False, False, False]])
    plan = AttentionMethod().plan(SequenceLayout.of(4, mask.device, mask), 8)
    inputs = [torch.randn(2, 4, 8, requires_grad=True) for _ in range(3)]
    for kernel in (Reference(), Blocked(3)):
        out = kernel(*inputs, plan)
        assert torch.equal(out[1], torch.zeros_like(out[1]))
        for gradient in torch.autograd.grad(out.sum(), inputs):
            assert gradient.isfinite().all()


def test_dropout_keeps_the_mean_and_zeroes_weights():
    plan = AttentionMethod().plan(SequenceLayout.of(64, torch.device("cpu")), 8)
    query, key = torch.randn(2, 50, 64, 8).unbind()
    value = torch.ones(50, 64, 1)
    for kernel in (Reference(), Blocked(10)):
        out = kernel(query, key, value, plan, dropout=0.25)
        assert out.std() > 0.01
        torch.testing.assert_close(out.mean(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_weights_that_are_computed_again_are_dropped_alike(monkeypatch):
    """The gradient of what was dropped: with values of ones, it is the weights that were left, each query's mean 1."""
    plan = AttentionMethod().plan(SequenceLayout.of(64, torch.device("cpu")), 8)
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


@pytest.mark.parametrize(("least", "kept"), [(10_000, True), (0, False)])
def test_weights_of_long_rows_are_not_kept_for_the_backward_pass(monkeypatch, least, kept):
    monkeypatch.setattr(blocked, "RECOMPUTE_FROM", least)
    plan = AttentionMethod().plan(SequenceLayout.of(64, torch.device("cpu")), 8)
    query, key, value = torch.randn(3, 1, 64, 8, requires_grad=True).unbind()
    saved = []

    def pack(tensor):
        saved.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        Blocked(10)(query, key, value, plan)
    assert ((1, 10, 64) in saved) == kept


def test_observer_sees_every_weight_once():
    mask = torch.arange(30)[None] < torch.tensor([[30], [17]])
    method = AttentionMethod(visibility=Window(4))
    plan = method.plan(SequenceLayout.of(30, mask.device, mask), 8)
    query, key, value = torch.randn(3, 2, 30, 8).unbind()
    whole = {}
    for name, kernel in (("reference", Reference()), ("blocked", Blocked(7))):
        weights = torch.full((2, 30, 30), 0.0)
        seen = torch.zeros(30, dtype=torch.int64)

        def observe(blocks, queries, keys, *_, weights=weights, seen=seen):
            for number in range(blocks.shape[1]):
                for place, query in enumerate(queries[0, number].tolist()):
                    for column, one in enumerate(keys[0, number].tolist()):
                        if 0 <= one < 30 and query < 30:
                            weights[:, query, one] += blocks[:, number, place, column]
                        else:
                            assert not blocks[:, number, place, column].any()
                    seen[query : query + 1] += 1

        kernel(query, key, value, plan, observer=observe)
        assert (seen == 1).all()
        whole[name] = weights
    torch.testing.assert_close(whole["blocked"], whole["reference"], atol=1e-6, rtol=0)
    assert (whole["blocked"][1, :, 17:] == 0).all()


@pytest.mark.parametrize("name", CASES)
def test_a_few_queries_get_what_they_get_among_all(name):
    """Any rows, any method: padding, packed documents, places that repeat and places without keys."""
    method, generator = CASES[name].method, np.random.default_rng(3)
    for length in (1, 7, 23):
        real = torch.arange(length) < torch.from_numpy(generator.integers(0, length + 1, (3, 1)))
        segments = torch.from_numpy(generator.integers(0, 3, (3, length))).sort(dim=1).values
        for mask, packed in ((None, None), (real, None), (None, segments), (real, segments)):
            plan = method.plan(SequenceLayout.of(length, real.device, mask, segment_ids=packed), KEY_SIZE)
            query, key = method.similarity.prepare(*torch.randn(2, 3, length, KEY_SIZE).unbind())
            value = torch.randn(3, length, 5)
            seen = []
            expected = Reference()(query, key, value, plan, observer=lambda *block, seen=seen: seen.append(block))
            index = torch.from_numpy(generator.integers(0, length, (3, 6)))
            for kernel in (Blocked(4), Reference()):
                entropies = []
                out = kernel(
                    query, key, value, plan, index, observer=lambda *seen, mine=entropies: mine.append(seen[3])
                )
                torch.testing.assert_close(out, take(expected, index), atol=1e-5, rtol=0)
                found = torch.cat(entropies, -1)[:, 0]
                torch.testing.assert_close(found, seen[0][3][:, 0].gather(1, index), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 30.0, 1000.0])
def test_entropy_without_logarithms_equals_a_float64_loop(sharpness):
    """From uniform attention, through weights of e^−64 and below, to a single key that takes all."""
    mask = torch.arange(40)[None] < torch.tensor([[40], [23]])
    method = AttentionMethod(visibility=Window(9))
    plan = method.plan(SequenceLayout.of(40, mask.device, mask), 8)
    query, key, value = torch.randn(3, 2, 40, 8).unbind()
    for kernel in (Reference(), Blocked(7)):
        seen = []
        kernel(query * sharpness, key, value, plan, observer=lambda *block, seen=seen: seen.append(block))
        for weights, _, _, entropy, sink in seen:
            assert sink is None
            expected = [
                [[-sum(a * math.log(a) for a in row if a > 0) for row in block] for block in rows]
                for rows in weights.double().tolist()
            ]
            np.testing.assert_allclose(entropy.numpy(), expected, atol=1e-5)
    assert (entropy[1].flatten()[-1] == 0).all(), "a query that sees nothing"


def test_unknown_kernel_is_named():
    for name in ("flash", "fused"):
        with pytest.raises(ValueError, match=f"'{name}'; choose one of: auto, reference, blocked"):
            build_kernel(name)
    with pytest.raises(ValueError, match="block_size must be at least 1"):
        Blocked(0)


LONG_ROW = """
import resource, torch
from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
model = GAUAlphaForMaskedLM(GAUAlphaConfig(258, 192, 384, 64, 2)).eval()
with torch.no_grad():
    logits = model(torch.randint(0, 256, (1, 32_768)), target_positions=torch.arange(0, 32_768, 8)[None])
assert logits.shape == (1, 4_096, 258) and logits.isfinite().all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_32768_tokens_within_a_gibibyte():
    """Scores of all pairs alone would take four."""
    done = subprocess.run([sys.executable, "-c", LONG_ROW], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**30


@pytest.mark.parametrize("visibility", [Window(20), AttentionSinks(20, 3, 8), LMInfinite(20, 3, 8)], ids=repr)
def test_a_window_in_pieces_is_the_window_at_once(visibility, monkeypatch):
    """No piece holds more scores of a row than it may."""
    torch.manual_seed(0)
    plan = AttentionMethod(visibility=visibility).plan(SequenceLayout.of(301, torch.device("cpu")), KEY_SIZE)
    query, key, value = torch.randn(2, 301, KEY_SIZE), torch.randn(2, 301, KEY_SIZE), torch.randn(2, 301, 8)
    sizes, weights_of = [], band._weights

    def noting(*args):
        weights = weights_of(*args)
        sizes.append(sum(one[0].numel() for one in weights if one is not None))
        return weights

    monkeypatch.setattr(band, "_weights", noting)
    at_once = Blocked()(query, key, value, plan)
    assert len(sizes) == 1
    monkeypatch.setattr(band, "_MOST_SCORES", 5_000)
    pieces = Blocked()(query, key, value, plan)
    assert len(sizes) > 3
    assert max(sizes[1:]) <= 5_000 < sizes[0]
    torch.testing.assert_close(pieces, at_once, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(pieces, Reference()(query, key, value, plan), atol=1e-5, rtol=1e-5)
