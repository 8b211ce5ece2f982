"""CalibratedScale: tables, their interpolation, and whether the temperatures found restore the entropy."""

import json
import math

import numpy as np
import pytest
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import Blocked, Reference
from gau_alpha.extrapolation import EvaluationOptions, ExtrapolationEngine
from gau_alpha.extrapolation.calibration import Calibration
from gau_alpha.extrapolation.calibration_solver import PRECISION, _drawn, calibrate, masked, solve
from gau_alpha.extrapolation.spans import document_fingerprint
from gau_alpha.normalizer import Entmax15, ReLUSquared, SinkSoftmax
from gau_alpha.position import ALiBi, DynamicNTK, LeakyReRoPE, NoPosition, ReRoPE, RoPE, YaRN
from gau_alpha.scaling import CalibratedScale, InfoScale, LogLength
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import Window
from gau_alpha.vocabulary import Vocabulary

VOCABULARY = Vocabulary(40, 1, 0)


def build(method=None, layers=3):
    torch.manual_seed(0)
    config = GAUAlphaConfig(40, 16, 24, 8, layers, initializer_range=0.8)
    return GAUAlphaForMaskedLM(config, method).eval()


def documents(*num_tokens):
    return [np.random.default_rng(seed).integers(2, 40, size=count) for seed, count in enumerate(num_tokens)]


def found(model, docs, **kwargs):
    options = {"method": "trained", "length_ratios": [1, 2, 8], "num_documents": 4, **kwargs}
    return calibrate(model, docs, VOCABULARY, 8, **options)


def entropies(model, method, tokens, length):
    """(K,) mean entropy of every layer over all queries of consecutive rows, from float64 weights."""
    sums, count = np.zeros(model.config.num_hidden_layers), 0
    kernel, model.kernel = model.kernel, Reference()

    def observe(layer, weights, *_):
        a = weights.double().numpy()
        sums[layer] -= (a * np.log(np.where(a > 0, a, 1))).sum()

    with torch.no_grad(), model.using(method):
        for row in tokens.reshape(-1, length):
            model(torch.as_tensor(row)[None], observer=observe)
            count += length
    model.kernel = kernel
    return sums / count


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        AttentionMethod(),
        AttentionMethod(scaling=LogLength(base=4.0)),
        AttentionMethod(CosScale(5.0)),
        AttentionMethod(scaling=InfoScale(8), position=RoPE(100.0)),
        AttentionMethod(position=ReRoPE(window=4, train_length=8)),
        AttentionMethod(CosScale(5.0), position=ReRoPE(window=4, train_length=8)),
        AttentionMethod(position=LeakyReRoPE(window=4, factor=8, train_length=8)),
        AttentionMethod(position=ALiBi(slope=0.01)),
        AttentionMethod(position=YaRN(train_length=8)),
        AttentionMethod(position=DynamicNTK(train_length=8)),
        AttentionMethod(position=NoPosition()),
        AttentionMethod(normalizer=SinkSoftmax(1.0)),
        AttentionMethod(normalizer=Entmax15()),
    ],
    ids=AttentionMethod.summary,
)
def test_every_layer_has_its_entropy_back(method):
    model, docs = build(method), documents(*[64] * 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = model.method
    calibration = found(model, docs)
    assert model.method is own
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    # The same text, hidden the same way, through the model itself.
    cut = ExtrapolationEngine(docs, VOCABULARY, 64, EvaluationOptions(length_ratios=[1])).spans
    tokens = np.concatenate([cut.batch([each], 64)[0][0] for each in cut.examples(64)[2:]])
    calibrated = own.replace(scaling=calibration.scale)
    wanted = entropies(model, own, tokens, 8)
    for length in (8, 16, 64):
        np.testing.assert_allclose(entropies(model, calibrated, tokens, length), wanted, rtol=2e-3)
    free = entropies(model, own, tokens, 64)
    assert (np.abs(free / wanted - 1) > 0.05).any(), "without it, entropy is another: something was tested"
    assert calibration.scale.lengths == [8, 16, 64]
    assert np.shape(calibration.scale.temperatures) == (3, 3)
    in_training = float(method.scaling.temperature(torch.tensor([8]), 8))
    assert [row[0] for row in calibration.scale.temperatures] == pytest.approx([in_training] * 3, abs=1e-6)
    np.testing.assert_allclose(np.array(calibration.provenance["entropy_after"])[:, 0], wanted, rtol=1e-4)


def test_a_normalizer_whose_entropy_no_temperature_moves_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Under ReLUSquared\(\) attention has the same entropy at any temperature"):
        found(build(AttentionMethod(normalizer=ReLUSquared())), documents(64))


def test_a_few_queries_are_nearly_as_good_as_all():
    model, docs = build(), documents(*[512] * 4)
    all_queries = np.array(found(model, docs, length_ratios=[8, 64], queries_per_document=512).scale.temperatures)
    some = np.array(found(model, docs, length_ratios=[8, 64], queries_per_document=128).scale.temperatures)
    np.testing.assert_allclose(some, all_queries, rtol=0.2)
    assert not np.array_equal(some, all_queries)


def test_the_same_queries_are_looked_at_in_rows_of_every_length(monkeypatch):
    model, docs = build(), documents(64, 64)
    looked_at = {}

    class Noting(Blocked):
        def __call__(self, query, key, value, plan, query_positions=None, *args, **kwargs):
            looked_at.setdefault(key.shape[1], query_positions)
            return super().__call__(query, key, value, plan, query_positions, *args, **kwargs)

    monkeypatch.setattr("gau_alpha.extrapolation.calibration_solver.Blocked", Noting)
    found(model, docs, length_ratios=[1, 2, 8], queries_per_document=10)
    assert {length: len(index) for length, index in looked_at.items()} == {8: 16, 16: 8, 64: 2}
    places = looked_at[64]  # (documents, 10)
    assert places.shape == (2, 10)
    assert places[0].tolist() != places[1].tolist()
    pieces = (places.double() * 10 / 64).floor()  # a place of a piece's lower edge may count to the one before
    assert (pieces - torch.arange(10)).abs().max() <= 1
    for length in (8, 16):
        for row, index in enumerate(looked_at[length]):
            document, start = row * length // 64, row * length % 64
            mine = [place - start for place in places[document].tolist() if start <= place < start + length]
            assert index.tolist()[: len(mine)] == mine
            assert not any(index.tolist()[len(mine) :]), "filled up"


def test_a_mean_over_sampled_queries_is_that_of_these_queries():
    """The table's entropies before calibration, from the whole weights of plain passes over rows."""
    model, docs = build(), documents(64, 64)
    calibration = found(model, docs, length_ratios=[1, 2], queries_per_document=7)
    places = [_drawn(16, 7, document, 0) for document in (0, 1)]
    hidden = [masked(document[:16], place, VOCABULARY, 0) for place, document in enumerate(docs)]
    total = np.zeros(3)
    model.kernel = Reference()
    for tokens, wanted in zip(hidden, places, strict=True):

        def observe(layer, weights, *_, wanted=wanted):
            a = weights.double().numpy().reshape(-1, weights.shape[-1])[wanted]
            total[layer] -= (a * np.log(np.where(a > 0, a, 1))).sum()

        with torch.no_grad():
            model(tokens.view(-1, 8), observer=observe)
    np.testing.assert_allclose(np.array(calibration.provenance["entropy_before"])[:, 0], total / 14, rtol=1e-5)


def test_lengths_need_not_divide_each_other():
    calibration = found(build(), documents(64, 64), length_ratios=[3, 8])
    assert calibration.scale.lengths == [8, 24, 64]
    after = np.array(calibration.provenance["entropy_after"])
    np.testing.assert_allclose(after, after[:, :1].repeat(3, 1), rtol=2e-3)


def test_the_last_long_documents_are_read_and_named():
    docs = documents(64, 10, 70, 64, 64, 12)
    calibration = found(build(), docs, num_documents=2)
    assert calibration.provenance["documents"] == [document_fingerprint(docs[place]) for place in (3, 4)]
    assert found(build(), docs, num_documents=2).scale.temperatures == calibration.scale.temperatures
    assert found(build(), docs, num_documents=2, seed=1).scale.temperatures != calibration.scale.temperatures


@pytest.mark.parametrize(
    ("model", "kwargs", "message"),
    [
        (AttentionMethod(visibility=Window(4)), {}, r"Window\(radius=4\).*at most 9 of 64 keys.*nothing to calibrate"),
        (None, {"length_ratios": [16]}, r"128 tokens of the longest length; the longest has 64"),
        (None, {"length_ratios": [1]}, r"length_ratios=\[1\] must hold whole numbers above 1"),
        (None, {"num_documents": 0}, "num_documents must be at least 1, got 0"),
        (None, {"queries_per_document": 0}, "queries_per_document must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_calibrated_is_said(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        found(build(model), documents(64, 64), **kwargs)


def test_a_layer_that_attends_to_nothing_in_particular_has_no_temperature():
    model = build()
    with torch.no_grad():
        model.gau_alpha.encoder.layer[1].gau.q_scaleoffset.weight.zero_()
    with pytest.raises(
        ValueError, match=r"No temperature restores the entropy of 2\.079 nats in layer 1 at 2× under Softmax"
    ):
        found(model, documents(64, 64))


@pytest.mark.parametrize("wanted", [0.01, 0.5, 2.0, 3.9])
@pytest.mark.parametrize("start", [0.05, 1.0, 30.0])
def test_solving_needs_few_evaluations(wanted, start):
    scores = np.random.default_rng(0).normal(size=60) * 3
    asked = []

    def entropy(tau):
        asked.append(tau)
        a = np.exp(tau * (scores - scores.max()))
        a /= a.sum()
        return float(-(a * np.log(np.where(a > 0, a, 1))).sum())

    tau, reached = solve(entropy, wanted, start, 1.0, "")
    assert reached == pytest.approx(wanted, rel=PRECISION)
    assert len(asked) <= 20
    assert entropy(tau) == pytest.approx(reached, rel=1e-9)


# ---- the table ----


def test_layers_have_their_own_rows():
    scale = CalibratedScale([8, 16], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    model = build(AttentionMethod(scaling=scale))
    n = torch.tensor([[8, 16]])
    rows = [block.gau.method.scaling.temperature(n, 8).tolist() for block in model.gau_alpha.encoder.blocks()]
    assert rows == [[[1.0, 2.0]], [[3.0, 4.0]], [[5.0, 6.0]]]
    assert model.method.describe()["scaling"]["init_args"] == {
        "lengths": [8, 16],
        "temperatures": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    }
    with pytest.raises(ValueError, match="3 layers, the model has 2"):
        build(AttentionMethod(scaling=scale), layers=2)
    with pytest.raises(ValueError, match="take the method of a layer"):
        scale.temperature(n, 8)


def test_interpolation_in_the_logarithm_of_the_length():
    scale = CalibratedScale([8, 32, 64], [[1.0, 2.0, 1.5]])
    n = torch.tensor([1, 8, 16, 32, 64, 128, 10**9])
    tau = scale.temperature(n, 8)
    assert tau.dtype == torch.float32
    assert tau[:6].tolist() == pytest.approx([1.0, 1.0, 1.5, 2.0, 1.5, 1.0])
    assert tau[6] == 0, "never negative, which would turn attention upside down"
    rising = CalibratedScale([8, 16], [[1.0, 1.25]]).temperature(torch.tensor([64]), 8)
    assert rising.item() == pytest.approx(1 + 0.25 * math.log2(8))
    assert CalibratedScale([8], [[1.25]]).temperature(torch.tensor([[3, 99]]), 8).tolist() == [[1.25, 1.25]]


def test_without_a_table_it_says_how_to_get_one():
    with pytest.raises(ValueError, match="gau-alpha calibrate"):
        build(AttentionMethod(scaling=CalibratedScale()))(torch.zeros(1, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([8],), "both or neither"),
        (([], [[]]), "one or more"),
        (([8, 8], [[1.0, 1.0]]), "ascend"),
        (([8, 16], [[1.0]]), "2 numbers"),
        (([8, 16], []), "2 numbers"),
        (([8], [[-1.0]]), "positive"),
        (([8], [[math.nan]]), "positive"),
    ],
)
def test_wrong_tables_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CalibratedScale(*arguments)


def test_the_file_is_small_plain_and_read_back(tmp_path):
    calibration = found(build(), documents(64, 64))
    path = calibration.write(tmp_path / "new" / "table.json")
    assert path.stat().st_size < 5000
    again = Calibration.read(path)
    assert again.scale.describe() == calibration.scale.describe()
    assert (again.method, again.provenance) == ("trained", json.loads(json.dumps(calibration.provenance)))
    assert {"train_length", "attention_method", "documents", "seed", "torch"} <= again.provenance.keys()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"method": "trained"}', '{"method": 1, "scaling": {"init_args": {"x": 1}}}']
)
def test_other_files_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match="There is no calibration"):
        Calibration.read(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json"):
        Calibration.read(tmp_path / "x.json")
