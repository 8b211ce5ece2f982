"""Protocol ``single-mask`` against plain loops, and its sampled form against its exact one."""

import math

import numpy as np
import pytest
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.extrapolation import Candidate, EvaluationOptions, ExtrapolationEngine, SingleMask
from gau_alpha.extrapolation.spans import MaskedExample
from gau_alpha.extrapolation.statistics import DocumentSums, student
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale
from gau_alpha.visibility import Window
from gau_alpha.vocabulary import Vocabulary

REPETITIONS = 200

VOCABULARY = Vocabulary(size=40, mask_id=1, pad_id=0, special_ids=(2, 3))


def build(dtype=torch.float32, method=None):
    torch.manual_seed(0)
    config = GAUAlphaConfig(40, 16, 24, 8, 2, initializer_range=0.5)
    return GAUAlphaForMaskedLM(config, method).to(dtype).eval()


def documents(*num_tokens):
    return [np.random.default_rng(seed).integers(2, 40, size=count) for seed, count in enumerate(num_tokens)]


def engine(docs, protocol, length=24, **kwargs):
    options = EvaluationOptions(length_ratios=[1], **{"num_resamples": 20, **kwargs})
    return ExtrapolationEngine(docs, VOCABULARY, length, options, protocol=protocol)


# ---- the model again, by hand: loops over layers, queries and keys in float64 ----


def float64_logits(weights, tokens, place, tau):
    """Logits at one place of one document: dot product, RoPE, everything visible; numpy, no code of the package."""
    hidden, width, size = 16, 24, 8

    def norm(x):
        return x / math.sqrt(float((x * x).mean()) + 1e-12)

    def turn(x, position):
        out = x.copy()
        for pair in range(size // 2):
            angle = position * 10_000.0 ** (-2 * pair / size)
            a, b = x[2 * pair], x[2 * pair + 1]
            out[2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            out[2 * pair + 1] = a * math.sin(angle) + b * math.cos(angle)
        return out

    words = weights["gau_alpha.embeddings.word_embeddings.weight"]
    kinds = weights["gau_alpha.embeddings.token_type_embeddings.weight"]
    xs = [norm(words[token] + kinds[0]) for token in tokens]
    assert len(xs[0]) == hidden
    for layer in range(2):
        name = f"gau_alpha.encoder.layer.{layer}.gau."
        projected = [weights[f"{name}i_dense.weight"] @ x for x in xs]
        projected = [p / (1 + np.exp(-p)) for p in projected]
        us, vs = [p[:width] for p in projected], [p[width : 2 * width] for p in projected]
        qs = [turn(p[2 * width :] * weights[f"{name}q_scaleoffset.weight"], i) for i, p in enumerate(projected)]
        ks = [turn(p[2 * width :] * weights[f"{name}k_scaleoffset.weight"], i) for i, p in enumerate(projected)]
        new = []
        for i in range(len(xs)):
            scores = [tau * float(qs[i] @ k) / math.sqrt(size) for k in ks]
            most = max(scores)
            exps = [math.exp(score - most) for score in scores]
            context = sum(e * v for e, v in zip(exps, vs, strict=True)) / sum(exps)
            new.append(norm(xs[i] + weights[f"{name}o_dense.weight"] @ (us[i] * context)))
        xs = new
    return weights["cls.predictions.decoder.weight"] @ xs[place]


def brute_force(model, docs, length, tau):
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    loss, correct, count = 0.0, 0, 0
    for document in docs:
        tokens = [int(token) for token in document[:length]]
        for place, hidden in enumerate(tokens):
            if hidden in (0, 1, 2, 3):
                continue
            row = float64_logits(weights, [*tokens[:place], 1, *tokens[place + 1 :]], place, tau).tolist()
            most = max(row)
            loss += most + math.log(sum(math.exp(x - most) for x in row)) - row[hidden]
            correct += row.index(most) == hidden
            count += 1
    return loss / count, correct / count, count


@pytest.mark.parametrize("trained_at", [None, 8])
@pytest.mark.parametrize("entropy", [True, False])
def test_exact_equals_plain_float64_loops(entropy, trained_at):
    model, docs = build(), documents(24, 31, 40)
    method, tau = model.method, 1.0
    if trained_at is not None:
        method = AttentionMethod(scaling=InfoScale(trained_at))
        tau = math.sqrt(1 - 24 ** (-2 / 8)) / math.sqrt(1 - trained_at ** (-2 / 8))
    one = engine(docs, SingleMask(), entropy=entropy, distances=False, tokens_per_batch=100)
    (row,) = one.compare([Candidate("own", model, method)])
    loss, accuracy, count = brute_force(model, docs, 24, tau)
    assert row.loss == pytest.approx(loss, rel=1e-6)
    assert row.perplexity == pytest.approx(math.exp(loss), rel=1e-6)
    assert row.accuracy == pytest.approx(accuracy, rel=1e-12)
    assert row.num_targets == row.num_positions == count > 60
    assert row.protocol == "single-mask"
    assert (row.loss_sampling_low, row.accuracy_sampling_high) == (None, None)
    assert (row.attention_entropy is not None) == entropy


@pytest.mark.parametrize("method", [AttentionMethod(CosScale(6.0)), AttentionMethod(visibility=Window(4))])
def test_batches_change_nothing(method):
    model, docs = build(method=method), documents(24, 31, 40)
    rows = [
        next(engine(docs, SingleMask(9), tokens_per_batch=budget).evaluate(model, {"own": method}))
        for budget in (1, 100, 10_000)
    ]
    for row in rows[1:]:
        for name in ("loss", "accuracy", "attention_entropy", "near_share", "loss_sampling_low"):
            assert getattr(row, name) == pytest.approx(getattr(rows[0], name), rel=1e-5)


# ---- what is drawn ----


@pytest.mark.parametrize(("num_ordinary", "asked"), [(100, 10), (101, 7), (13, 12), (9, 1), (50, 3), (4096, 64)])
def test_strata_cover_the_document_and_give_two_positions_each(num_ordinary, asked):
    tokens = np.full(2 * num_ordinary, 10)
    tokens[::2] = 2  # special
    hidden = SingleMask(asked).targets(tokens, 3, 0, (2,))
    positions = hidden.positions[:, 0]
    assert hidden.positions.shape == (asked, 1)
    assert (np.diff(positions) > 0).all(), "none twice"
    assert (positions % 2 == 1).all(), "no special token"
    assert hidden.stratum_sizes.sum() == num_ordinary
    assert hidden.stratum_sizes.max() - hidden.stratum_sizes.min() <= num_ordinary / asked + 1
    counts = np.bincount(hidden.stratum)
    assert set(counts) <= ({1} if asked == 1 else {2, 3})
    edges = np.concatenate([[0], hidden.stratum_sizes.cumsum()])
    which = positions // 2
    assert ((edges[hidden.stratum] <= which) & (which < edges[hidden.stratum + 1])).all()


def test_every_position_is_drawn_as_often_as_its_weight_says():
    """Horvitz and Thompson: Σ of weights drawn for a position averages 1, which is what unbiased means."""
    tokens = np.full(23, 10)
    total = np.zeros(23)
    for seed in range(4000):
        hidden = SingleMask(7).targets(tokens, 0, seed, ())
        drawn = np.bincount(hidden.stratum)
        total[hidden.positions[:, 0]] += hidden.stratum_sizes[hidden.stratum] / drawn[hidden.stratum]
    # One weight is about 3.3 with probability 1 / 3.3: standard deviation 1.5, of the mean 0.024.
    assert np.abs(total / 4000 - 1).max() < 0.1


def test_all_positions_of_a_document_that_has_no_more():
    hidden = SingleMask(30).targets(np.array([5, 2, 6, 7]), 0, 0, (2,))
    assert hidden.positions[:, 0].tolist() == [0, 2, 3]
    assert hidden.stratum is None
    assert SingleMask().targets(np.array([2, 2]), 0, 0, (2,)).positions.shape[0] == 0


def test_wrong_number_of_positions():
    with pytest.raises(ValueError, match=r"positions_per_document must be at least 1, got 0: null is for all"):
        SingleMask(0)


def partly_predictable(model, document, seed):
    """The document with the model's own guesses in place of most tokens: some predictions are right."""
    rng = np.random.default_rng(seed)
    places = torch.arange(len(document))
    for _ in range(4):
        rows = torch.as_tensor(document).repeat(len(document), 1)
        rows[places, places] = VOCABULARY.mask_id
        with torch.no_grad():
            guesses = model(rows, target_positions=places[:, None])[:, 0].argmax(-1).numpy()
        document = np.where(rng.random(len(document)) < 0.7, guesses, document)
    return document


def truth_of(docs):
    model = build()
    (row,) = engine(docs, SingleMask(), 96, entropy=False, distances=False).evaluate(model, {"own": model.method})
    return model, docs, row


@pytest.fixture(scope="module")
def exact():
    return truth_of(documents(*[96] * 6))


def sampled(exact, seed, asked):
    model, docs, _ = exact
    one = engine(docs, SingleMask(asked), 96, entropy=False, distances=False, seed=seed, num_resamples=1)
    return next(one.evaluate(model, {"own": model.method}))


def repeated(exact, name):
    """Low end, high end and middle of the estimates of many seeds, (3, REPETITIONS)."""
    rows = [sampled(exact, seed, 24) for seed in range(REPETITIONS)]
    *_, truth = exact
    assert {row.num_positions for row in rows} == {truth.num_targets}
    assert {row.num_targets for row in rows} == {6 * 24}
    fields = (f"{name}_sampling_low", f"{name}_sampling_high", name)
    return np.array([[getattr(row, field) for field in fields] for row in rows], np.float64).T


@pytest.mark.slow
def test_the_interval_covers_the_exact_value_as_often_as_it_says(exact):
    *_, truth = exact
    low, high, middle = repeated(exact, "loss")
    assert 0.93 <= ((low <= truth.loss) & (truth.loss <= high)).mean() <= 0.97
    assert abs(middle.mean() - truth.loss) < 3 * middle.std(ddof=1) / REPETITIONS**0.5, "unbiased"


@pytest.mark.slow
def test_the_interval_of_the_accuracy_covers_it_too():
    """At least as often as it says: where most positions of a stratum agree, few degrees of freedom make it wide."""
    model = build()
    exact = truth_of([partly_predictable(model, document, seed) for seed, document in enumerate(documents(*[96] * 6))])
    *_, truth = exact
    assert 0.1 < truth.accuracy < 0.9
    low, high, middle = repeated(exact, "accuracy")
    told = np.isfinite(low)  # if no draw differs from its partner, nothing is known of the variance
    assert told.mean() > 0.9
    assert ((low <= truth.accuracy) & (truth.accuracy <= high))[told].mean() >= 0.93
    assert abs(middle.mean() - truth.accuracy) < 3 * middle.std(ddof=1) / REPETITIONS**0.5, "unbiased"


def test_students_distribution():
    """Quantiles from printed tables (Abramowitz and Stegun 1964, table 26.10)."""
    printed = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}
    for freedom, quantile in printed.items():
        assert student(freedom) == pytest.approx(quantile, rel=2e-3)
    assert student(1e12) == pytest.approx(1.959964)


def test_variance_and_its_doubt_of_one_document_by_hand():
    strata = [(10, [0.5, 1.5]), (9, [2.0, 2.0, 5.0])]
    examples = [
        MaskedExample(0, np.arange(1), number == 0, stratum, size)
        for stratum, (size, drawn) in enumerate(strata)
        for number, _ in enumerate(drawn)
    ]
    losses = [loss for _, drawn in strata for loss in drawn]
    sums = DocumentSums.from_examples(np.array([[loss, 1.0] for loss in losses]), examples)
    # s² = 0.5 of the two, 3 of the three.
    first, second = 10**2 * (1 - 2 / 10) * 0.5 / 2, 9**2 * (1 - 3 / 9) * 3.0 / 3
    assert sums.loss.tolist() == pytest.approx([10 * 1.0 + 9 * 3.0])
    assert sums.loss_variance.tolist() == pytest.approx([first + second])
    assert sums.loss_doubt.tolist() == pytest.approx([first**2 / 1 + second**2 / 2])
    assert sums.correct_variance.tolist() == sums.correct_doubt.tolist() == [0.0]


def test_one_position_gives_no_interval(exact):
    row = sampled(exact, 0, 1)
    assert (row.loss_sampling_low, row.accuracy_sampling_low) == (None, None)
    assert row.num_positions > row.num_targets == 6


def test_attention_is_looked_at_in_one_pass_per_document_and_the_rest_is_cheap():
    model, docs = build(), documents(24, 31, 40)
    widths = []
    model.gau_alpha.encoder.layer[-1].gau.o_dense.register_forward_hook(
        lambda module, args, out: widths.append(tuple(out.shape[:2]))
    )
    next(engine(docs, SingleMask(8), tokens_per_batch=24 * 21).evaluate(model, {"own": model.method}))
    assert widths == [(3, 24), (21, 1)]
