"""Where formulas end: many sinks, given positions, holes, nothing to compute, float64."""

import numpy as np
import pytest
import torch
from slow_attention import Document, ceiling_distance, rope_score, sinks_distance, window_and_sinks

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import Blocked, Reference
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.presets import resolve_method
from gau_alpha.visibility import AttentionSinks, LMInfinite, count_visible_keys

KEY_SIZE = 8
SINKS = [(AttentionSinks, sinks_distance), (LMInfinite, ceiling_distance)]
CONFIG = GAUAlphaConfig(20, 16, 32, KEY_SIZE, 2)


def model_of(method, kernel="auto"):
    torch.manual_seed(0)
    model = GAUAlphaForMaskedLM(CONFIG, method, kernel).eval()
    for block in model.gau_alpha.encoder.blocks():
        block.gau.q_scaleoffset.weight.data.normal_(std=30)  # attention far from even
    return model


def sharp(length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(1, length, KEY_SIZE, generator=generator) for _ in range(2))
    return query, key, torch.randn(1, length, 5, generator=generator)


@pytest.mark.parametrize(("kind", "distance_of"), SINKS)
@pytest.mark.parametrize(("radius", "sinks"), [(2, 8), (1, 20), (5, 5), (3, 60)])
@pytest.mark.parametrize("block_size", [1, 3, 64])
def test_sinks_to_the_right_of_a_block_are_seen(kind, distance_of, radius, sinks, block_size):
    """Against loops over pairs, more sinks than the window reaches included."""
    length, train_length = 40, 4
    visibility = kind(radius, sinks, train_length)
    plan = AttentionMethod(visibility=visibility).plan(SequenceLayout.of(length, torch.device("cpu")), KEY_SIZE)
    query, key, value = sharp(length)
    distance = distance_of(radius, train_length) if kind is LMInfinite else distance_of(radius, sinks, train_length)
    score, sees = rope_score(distance=distance), window_and_sinks(radius, sinks, train_length)
    document, expected = Document(0, length), np.zeros((length, 5))
    q, k, v = (x[0].double().numpy() for x in (query, key, value))
    for i in range(length):
        keys = [j for j in range(length) if sees(i, j, document)]
        scores = np.array([score(q[i], k[j], i, j, document) for j in keys])
        weights = np.exp(scores - scores.max())
        expected[i] = weights / weights.sum() @ v[keys]
    for kernel in (Reference(), Blocked(block_size)):
        np.testing.assert_allclose(kernel(query, key, value, plan)[0].numpy(), expected, atol=2e-5)


@pytest.mark.parametrize("visibility", [AttentionSinks(2, 8, 4), LMInfinite(2, 8, 4), AttentionSinks(32, 200, 64)])
def test_a_single_target_gets_what_it_gets_among_all(visibility):
    length = 3 * max(40, visibility.sinks)
    model = model_of(AttentionMethod(visibility=visibility))
    ids = torch.randint(20, (1, length), generator=torch.Generator().manual_seed(0))
    whole = model(ids)
    for place in (0, visibility.sinks - 1, length - 1):
        alone = model(ids, target_positions=torch.tensor([[place]]))
        torch.testing.assert_close(alone[0, 0], whole[0, place], atol=1e-5, rtol=0)
    torch.testing.assert_close(model_of(model.method, "reference")(ids), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "_"), SINKS)
@pytest.mark.parametrize("kernel", [Reference(), Blocked(4)], ids=["reference", "blocked"])
@pytest.mark.parametrize("case", ["holes", "position ids", "both", "packed"])
def test_short_documents_in_long_rows_are_plain_rope(kind, _, kernel, case):
    """Whatever hides tokens of them, and whatever positions they are given: their true distances."""
    length, train_length = 30, 12
    generator = np.random.default_rng(0)
    real = segments = ids = None
    if case in ("holes", "both"):
        real = torch.zeros(1, length, dtype=torch.bool)
        real[0, generator.permutation(length)[:train_length]] = True
    if case in ("position ids", "both"):
        ids = torch.from_numpy(generator.integers(1, 9, (1, length)).cumsum(1))
        real = torch.arange(length)[None] < train_length if real is None else real
    if case == "packed":
        segments = torch.tensor([[0] * 10 + [1] * 8 + [2] * 12])
        ids = torch.from_numpy(generator.integers(1, 9, (1, length)).cumsum(1))
    rows = SequenceLayout.of(length, torch.device("cpu"), real, ids, segments)
    outputs = []
    for method in (AttentionMethod(visibility=kind(2, 1, train_length)), AttentionMethod()):
        outputs.append(kernel(*sharp(length), method.plan(rows, KEY_SIZE)))
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "_"), SINKS)
def test_given_positions_decide_what_is_near(kind, _):
    """A window of positions with gaps holds no key that a rotation would put on the wrong side."""
    length, visibility = 40, kind(6, 2, 8)
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, 5, (1, length)).cumsum(1))
    rows = SequenceLayout.of(length, ids.device, position_ids=ids)
    index = torch.arange(length)[None]
    near = (ids[:, None] - ids[:, :, None]).abs() <= 6
    assert torch.equal(visibility.mask(index[:, :, None], index[:, None], rows), near | (index < 2))
    assert torch.equal(visibility.num_visible_keys(rows), count_visible_keys(visibility, rows))
    plan = AttentionMethod(visibility=visibility).plan(rows, KEY_SIZE)
    reference, blocked = (kernel(*sharp(length), plan) for kernel in (Reference(), Blocked(4)))
    torch.testing.assert_close(blocked, reference, atol=1e-5, rtol=0)


EVERY_KIND = ["softmax", "windowed", "streaming_llm", "lm_infinite", "rerope", "sandwich", "alibi", "yarn", "ssmax"]


@pytest.mark.parametrize("name", EVERY_KIND)
@pytest.mark.parametrize("kernel", ["blocked", "reference"])
@pytest.mark.parametrize(("batch", "length", "targets"), [(2, 9, 0), (0, 9, 3), (0, 9, 0), (2, 0, 0), (0, 0, 0)])
def test_nothing_to_compute_gives_nothing(name, kernel, batch, length, targets):
    model = model_of(resolve_method(name, base=AttentionMethod(), train_length=6), kernel)
    ids = torch.zeros(batch, length, dtype=torch.int64)
    for layout in ({}, {"attention_mask": ids, "segment_ids": ids, "position_ids": ids}):
        assert model(ids, **layout).shape == (batch, length, 20)
        at = torch.zeros(batch, targets, dtype=torch.int64)
        assert model(ids, **layout, target_positions=at).shape == (batch, targets, 20)


@pytest.mark.parametrize("name", EVERY_KIND)
@pytest.mark.parametrize("kernel", ["auto", "blocked", "reference"])
def test_a_float64_model_computes(name, kernel):
    """Weights and values in float64, scores in float32 as everywhere: the float32 model's numbers."""
    model = model_of(resolve_method(name, base=AttentionMethod(), train_length=6), kernel)
    ids = torch.randint(20, (2, 15), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(15) < torch.tensor([[15], [7]])
    single = model(ids, mask)
    double = model.double()(ids, mask)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float()[mask], single[mask], atol=1e-4, rtol=0)
