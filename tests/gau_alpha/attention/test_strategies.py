"""All strategies, found by themselves: formulas against slow loops, and the properties that hold for every one."""

import math

import numpy as np
import pytest
import torch
from slow_attention import attention
from strategy_cases import CASES, KEY_SIZE, TRAIN_LENGTH

from gau_alpha import GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.attention.kernels import Blocked, Reference
from gau_alpha.attention.layout import SequenceLayout
from gau_alpha.attention.method import AttentionMethod
from gau_alpha.attention.presets import AXIS_TYPES, build_strategies, known_strategies, load_preset
from gau_alpha.position import (
    ALiBi,
    DynamicNTK,
    KerpleLog,
    LeakyReRoPE,
    PartialRoPE,
    PoSE,
    PositionInterpolation,
    RandomizedPositions,
    ReRoPE,
    RoPE,
    Rotary,
    Rotation,
    Sandwich,
    ScaleInvariant,
    SelfExtend,
    StretchedPositions,
    YaRN,
    rotate,
)
from gau_alpha.scaling import (
    CalibratedScale,
    ConstantTemperature,
    InfoScale,
    Llama4Temperature,
    LogLength,
    NoScaling,
    Product,
    ScalableSoftmax,
    YaRNTemperature,
)
from gau_alpha.similarity import CosScale, DotProduct, LearnedCosScale
from gau_alpha.visibility import AttentionSinks, Full, LMInfinite, Window, count_visible_keys

KERNELS = {
    "reference": Reference(),
    "blocked 1": Blocked(1),
    "blocked 5": Blocked(5),
    "blocked 256": Blocked(),
}


def random_rows(generator, batch=2):
    """Rows of random length, some padded, some packed."""
    length = int(generator.integers(1, 24))
    real = np.ones((batch, length), bool)
    if generator.random() < 0.5:
        for row in real:
            row[int(generator.integers(1, length + 1)) :] = False
    segments = np.zeros((batch, length), int)
    if generator.random() < 0.5:
        segments = np.sort(generator.integers(0, 3, (batch, length)), axis=1)
    return real, segments


def layout(real, segments):
    return SequenceLayout.of(
        real.shape[1], torch.device("cpu"), torch.from_numpy(real), segment_ids=torch.from_numpy(segments)
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", CASES)
def test_slow_loop(name, kernel):
    case = CASES[name]
    generator = np.random.default_rng(sum(map(ord, name)))
    for _ in range(6):
        real, segments = random_rows(generator)
        query, key, value = (generator.normal(size=(*real.shape, width)) for width in (KEY_SIZE, KEY_SIZE, 3))
        prepared = case.method.similarity.prepare(torch.tensor(query).float(), torch.tensor(key).float())
        plan = case.method.plan(layout(real, segments), KEY_SIZE)
        with torch.no_grad():
            ours = KERNELS[kernel](*prepared, torch.tensor(value).float(), plan)
        for row in range(len(real)):
            slowly = [case.prepare(q, k) for q, k in zip(query[row], key[row], strict=True)]
            q, k = (np.array(side) for side in zip(*slowly, strict=True))
            expected = attention(
                q, k, value[row], case.score, case.temperature, case.sees, real[row], segments[row], case.count,
                case.normalize,
            )  # fmt: skip
            # what a padded query outputs is not part of the contract
            np.testing.assert_allclose(ours[row].numpy()[real[row]], expected[real[row]], atol=1e-5)


def test_every_strategy_has_a_slow_reference():
    tested = {type(strategy).__name__ for case in CASES.values() for _, strategy in case.method.axes()}
    shipped = {name for line in known_strategies().splitlines() for name in line.split(": ")[1].split(", ")}
    assert shipped == tested
    assert len(shipped) >= 25


@pytest.mark.parametrize("name", CASES)
def test_described_and_built_again(name):
    method = CASES[name].method
    again = AttentionMethod(**build_strategies(method.describe()))
    assert again.describe() == method.describe()
    assert list(method.describe()) == list(AXIS_TYPES)


@pytest.mark.parametrize("name", CASES)
def test_shifting_all_positions_changes_nothing(name):
    """By a multiple of the three tokens that Self-Extend groups."""
    method, length = CASES[name].method, 19
    query, key, value = torch.randn(3, 1, length, KEY_SIZE).unbind()
    prepared = method.similarity.prepare(query, key)
    here, there = (
        Reference()(*prepared, value, method.plan(SequenceLayout.of(length, query.device, position_ids=ids), KEY_SIZE))
        for ids in (torch.arange(length)[None], torch.arange(length)[None] + 999)
    )
    torch.testing.assert_close(here, there, atol=2e-6, rtol=0)


# Sinks are at the start of a document: reversed, they would be at its end.
ONE_SIDED = {name for name, case in CASES.items() if isinstance(case.method.visibility, AttentionSinks)}


@pytest.mark.parametrize("name", sorted(CASES.keys() - ONE_SIDED))
def test_reversing_the_row_reverses_the_output(name):
    """Of 18 tokens, which Self-Extend's groups of three divide from both ends alike."""
    method = CASES[name].method
    query, key, value = torch.randn(3, 1, 18, KEY_SIZE).unbind()
    prepared = method.similarity.prepare(query, key)
    plan = method.plan(SequenceLayout.of(18, query.device), KEY_SIZE)
    # Reversed, a key that stood 3 to the right stands 3 to the left. Conjugating each pair of dimensions turns it back.
    mirror = torch.tensor([1.0, -1.0]).repeat(KEY_SIZE // 2)
    forward = Reference()(*prepared, value, plan)
    backward = Reference()(*(x.flip(1) * mirror for x in prepared), value.flip(1), plan).flip(1)
    torch.testing.assert_close(forward, backward, atol=2e-6, rtol=0)


# These act below train_length by definition: some scale there, a window hides by its radius.
ACTS_ON_SHORT_ROWS = (
    InfoScale, LogLength, CalibratedScale, ConstantTemperature, StretchedPositions, Window, Product,
)  # fmt: skip
EXTENSIONS = {
    name
    for name, case in CASES.items()
    if all(
        strategy.training_free and not isinstance(strategy, ACTS_ON_SHORT_ROWS) for _, strategy in case.method.axes()
    )
    and getattr(case.method.position, "base", 10_000.0) == 10_000.0
}


@pytest.mark.parametrize("name", sorted(EXTENSIONS))
@pytest.mark.parametrize("padded", [False, True])
def test_up_to_train_length_it_is_plain_rope(name, padded):
    """Also for the short documents of a batch with long ones."""
    method = CASES[name].method
    query, key, value = torch.randn(3, 2, 20 if padded else TRAIN_LENGTH, KEY_SIZE).unbind()
    prepared = method.similarity.prepare(query, key)
    mask = torch.arange(20)[None] < torch.tensor([[20], [TRAIN_LENGTH]]) if padded else None
    rows = SequenceLayout.of(query.shape[1], query.device, mask)
    ours, plain = (Blocked(4)(*prepared, value, one.plan(rows, KEY_SIZE)) for one in (method, AttentionMethod()))
    if padded:  # other views of the long row cut products elsewhere, which changes rounding
        torch.testing.assert_close(ours[1, :TRAIN_LENGTH], plain[1, :TRAIN_LENGTH], atol=1e-6, rtol=0)
    else:
        assert torch.equal(ours, plain)
    if padded and name != "softmax":
        assert not torch.equal(ours[0], plain[0])


def test_all_published_extensions_are_among_them():
    assert {"pi", "ntk", "dynamic_ntk", "yarn", "rerope", "leaky_rerope", "streaming_llm", "lm_infinite"} <= EXTENSIONS


@pytest.mark.parametrize("name", CASES)
def test_finite_at_far_positions(name):
    method = CASES[name].method
    query, key, value = torch.randn(3, 1, 40, KEY_SIZE).unbind()
    far = torch.linspace(0, 131_071, 40).long()[None]
    plan = method.plan(SequenceLayout.of(40, query.device, position_ids=far), KEY_SIZE)
    assert Reference()(*method.similarity.prepare(query, key), value, plan).isfinite().all()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("length", [1, 2, 300, 131_072])
def test_temperature_is_finite(name, length):
    tau = CASES[name].method.scaling.temperature(torch.tensor([[0, 1, length]]), KEY_SIZE)
    assert tau.shape == (1, 3)
    assert tau.dtype == torch.float32
    assert tau.isfinite().all()
    assert (tau >= 0).all()


@pytest.mark.parametrize("name", CASES)
def test_counting_by_formula_equals_counting_pairs(name):
    generator = np.random.default_rng(0)
    visibility = CASES[name].method.visibility
    for _ in range(10):
        rows = layout(*random_rows(generator))
        counted = count_visible_keys(visibility, rows, block_size=7)
        assert torch.equal(visibility.num_visible_keys(rows).expand_as(counted), counted)


def rotations():
    return [method.position for method in (c.method for c in CASES.values()) if isinstance(method.position, Rotary)]


def test_rotations_keep_norms():
    x = torch.randn(2, 50, KEY_SIZE)
    rows = SequenceLayout.of(50, x.device)
    for position in rotations():
        for view in position.branches(rows, KEY_SIZE):
            for rotation in (view.query, view.key):
                torch.testing.assert_close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))
    assert rotations()


def test_far_angles_are_exact():
    """At position 131,071 float32 frequencies would be off by 0.007 rad, more than neighbours differ by at low ones."""
    far = torch.tensor([[131_071]])
    rows = SequenceLayout.of(1, far.device, position_ids=far)
    angles = RoPE().angles(far, rows, 128)[0, 0]
    exact = np.array([131_071 * 10_000.0 ** (-2 * m / 128) for m in range(64)])
    np.testing.assert_allclose(angles.numpy(), exact, atol=1e-3, rtol=0)
    (view,) = RoPE().branches(rows, 128)
    np.testing.assert_allclose(view.query.factor.real[0, 0].numpy(), np.cos(exact), atol=1e-6)
    np.testing.assert_allclose(view.query.factor.imag[0, 0].numpy(), np.sin(exact), atol=1e-6)


@pytest.mark.parametrize("train_length", [2, 64, 512])
def test_temperature_is_one_at_train_length(train_length):
    n = torch.tensor([train_length])
    assert InfoScale(train_length).temperature(n, 128).item() == 1.0
    assert LogLength(train_length).temperature(n, 128).item() == pytest.approx(1.0, abs=1e-7)
    assert NoScaling().temperature(n, 128).item() == 1.0


def test_infoscale_below_and_above_train_length():
    tau = InfoScale(64).temperature(torch.tensor([16, 64, 4096]), 128)
    assert tau[0] < 1 < tau[2]
    expected = [math.sqrt(1 - n ** (-2 / 128)) / math.sqrt(1 - 64 ** (-2 / 128)) for n in (16, 64, 4096)]
    np.testing.assert_allclose(tau.numpy(), expected, rtol=1e-6)


def test_window_at_least_as_wide_as_the_row_is_full():
    rows = SequenceLayout.of(10, torch.device("cpu"))
    index = torch.arange(10)
    assert Window(9).mask(index, index, rows).all()
    assert torch.equal(Window(9).num_visible_keys(rows), Full().num_visible_keys(rows).expand(1, 10))


VISIBLE = {
    # ten tokens, '#' where the query (down) sees the key (across)
    Window(2): """
        ###.......
        ####......
        #####.....
        .#####....
        ..#####...
        ...#####..
        ....#####.
        .....#####
        ......####
        .......###
    """,
    AttentionSinks(radius=2, sinks=2, train_length=4): """
        ###.......
        ####......
        #####.....
        ######....
        #######...
        ##.#####..
        ##..#####.
        ##...#####
        ##....####
        ##.....###
    """,
    LMInfinite(radius=1, sinks=1, train_length=4): """
        ##........
        ###.......
        ####......
        #.###.....
        #..###....
        #...###...
        #....###..
        #.....###.
        #......###
        #.......##
    """,
    AttentionSinks(radius=1, sinks=1, train_length=10): "##########\n" * 10,
}


@pytest.mark.parametrize("visibility", VISIBLE, ids=repr)
def test_visible_sets(visibility):
    index = torch.arange(10)[None]
    rows = SequenceLayout.of(10, index.device)
    seen = visibility.mask(index[:, :, None], index[:, None], rows)[0]
    expected = [line.strip() for line in VISIBLE[visibility].split()]
    assert ["".join("#" if one else "." for one in row) for row in seen.tolist()] == expected
    # a sink inside the window is one key, not two
    counts = [row.count("#") for row in expected]
    assert visibility.num_visible_keys(rows).expand(1, 10)[0].tolist() == counts


@pytest.mark.parametrize("visibility", [Window(3), AttentionSinks(3, 2, 4), LMInfinite(2, 3, 4)], ids=repr)
def test_bands_are_what_rules_show(visibility):
    rows = SequenceLayout.of(30, torch.device("cpu"))
    index = torch.arange(30)
    band = visibility.band(rows)
    distance = index - index[:, None]
    seen = visibility.mask(index[None, :, None], index[None, None], rows)[0]
    assert band.exact  # kernels then ask nothing else
    assert torch.equal(seen, (distance.abs() <= band.radius) | (index < band.sinks))


class Dilated(Window):
    """Every second key of a window: its band is a bound."""

    def mask(self, queries, keys, layout):
        return super().mask(queries, keys, layout) & ((queries - keys) % 2 == 0)

    def num_visible_keys(self, layout):
        return count_visible_keys(self, layout)


def test_a_subclass_with_a_rule_of_its_own_is_asked():
    method = AttentionMethod(visibility=Dilated(20))
    query, key = torch.randn(2, 2, 300, 16)
    value = torch.randn(2, 300, 24)
    plan = method.plan(SequenceLayout.of(300, value.device), 16)
    expected = Reference()(query, key, value, plan)
    torch.testing.assert_close(Blocked()(query, key, value, plan), expected, atol=1e-5, rtol=0)


def test_yarns_temperature_is_counted_once():
    """With q = k = ones at distance 0, the ratio of scores to RoPE's is (0.1 ln s + 1)²."""
    length, train_length = 48, 16
    ones = torch.ones(1, length, KEY_SIZE)
    scores = {}
    for name, axes in (("rope", {}), ("yarn", load_preset("yarn"))):
        method = AttentionMethod().replace(**axes).with_train_length(train_length)
        plan = method.plan(SequenceLayout.of(length, ones.device), KEY_SIZE)
        query, key = method.similarity.prepare(ones, ones)
        (view,) = plan.branches
        turned = rotate(query, view.query) * plan.temperature[..., None] @ rotate(key, view.key).transpose(1, 2)
        scores[name] = turned[0].diagonal()
    ratio = (0.1 * math.log(length / train_length) + 1) ** 2
    torch.testing.assert_close(scores["yarn"] / scores["rope"], torch.full((length,), ratio))


def test_far_keys_keep_their_side():
    """The published ReRoPE rotates far right keys as far left ones; then reversal would not be a symmetry."""
    query, key = torch.randn(2, 1, 40, KEY_SIZE).unbind()
    rows = SequenceLayout.of(40, query.device)
    near, left, right = ReRoPE(8, 16).branches(rows, KEY_SIZE)
    to_left = (rotate(query, left.query)[0, 30] * rotate(key, left.key)[0, 1]).sum()
    to_right = (rotate(query, right.query)[0, 1] * rotate(key, right.key)[0, 30]).sum()
    plain = RoPE().branches(rows, KEY_SIZE)[0]
    for far, q, k, distance in ((to_left, 30, 1, 8), (to_right, 1, 30, -8)):
        zero = Rotation(plain.query.factor[:, :1])
        at = plain.query.factor[:, 8:9]
        at = Rotation(at if distance > 0 else at.conj())
        expected = (rotate(query[:, q : q + 1], at) * rotate(key[:, k : k + 1], zero)).sum()
        torch.testing.assert_close(far, expected)
    assert (near.min_distance, near.max_distance, left.max_distance, right.min_distance) == (-7, 7, -8, 8)


def test_self_extends_table_of_positions():
    """Window 4, groups of 3, 12 tokens, seen from the last and from the first: as the paper's figure 3 has it."""
    rows = SequenceLayout.of(12, torch.device("cpu"))
    branches = SelfExtend(4, 3, 6).branches(rows, KEY_SIZE)
    slowest = 10_000.0 ** (-2 * (KEY_SIZE // 2 - 1) / KEY_SIZE)
    for query, expected in ((11, [6, 6, 6, 5, 5, 5, 4, 4, 3, 2, 1, 0]), (0, [0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6])):
        found = []
        for key in range(12):
            distance = torch.tensor(key - query)
            (branch,) = (one for one in branches if one.holds_at(distance))
            turned = branch.query.factor[0, query, -1] * branch.key.factor[0, key, -1].conj()
            found.append(turned.angle().item() / slowest * (1 if query else -1))
        assert found == pytest.approx(expected, abs=1e-2)


def test_partial_rope_has_the_frequencies_of_transformers():
    rope_utils = pytest.importorskip("transformers.modeling_rope_utils", reason="the frequencies of transformers")
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=128, num_attention_heads=1, head_dim=128)
    config.rope_parameters = {"rope_type": "proportional", "rope_theta": 10_000.0, "partial_rotary_factor": 0.7}
    expected, _ = rope_utils.ROPE_INIT_FUNCTIONS["proportional"](config, device=torch.device("cpu"))
    rows = SequenceLayout.of(2, expected.device)
    angles = PartialRoPE(0.7).angles(torch.tensor([[1]]), rows, 128)[0, 0]
    torch.testing.assert_close(angles.float(), expected)
    assert (angles == 0).sum() == 64 - int(0.7 * 64)


def test_a_learned_cosine_scale_is_each_layers_own():
    """Its gradient is that of differences, and the layers' parts."""
    torch.manual_seed(0)
    config = GAUAlphaConfig(20, 16, 32, 8, 2, initializer_range=0.5)
    model = GAUAlphaForMaskedLM(config, AttentionMethod(LearnedCosScale(4.0))).eval()
    scales = [block.gau.method.similarity for block in model.gau_alpha.encoder.blocks()]
    ids = torch.randint(20, (2, 9))
    model(ids).logsumexp(-1).sum().backward()
    grads = [one.log_scale.grad.item() for one in scales]
    assert grads[0] != grads[1]
    for one, grad in zip(scales, grads, strict=True):
        ends = []
        for sign in (-1, 1):
            with torch.no_grad():
                one.log_scale += sign * 0.05
                ends.append(model(ids).double().logsumexp(-1).sum().item())
                one.log_scale -= sign * 0.05
        assert (ends[1] - ends[0]) / 0.1 == pytest.approx(grad, rel=0.02)
    query, key = torch.randn(2, 1, 5, 8).unbind()
    fixed, learned = (one.prepare(query, key) for one in (CosScale(4.0), LearnedCosScale(4.0)))
    torch.testing.assert_close(learned, fixed)


class GainedReRoPE(ReRoPE):
    gained = True


def test_each_tenfold_of_distances_gets_as_much_attention():
    """The paper's first condition. Of a standard normal similarity x, the mean of exp(g·x + b) is exp(g²/2 + b)."""
    distance = torch.arange(100_000)
    position = ScaleInvariant()
    mean = (position.gain(distance).double().square() / 2 + position.bias(distance).double()).exp()
    attention = [mean[start : 10 * start].sum().item() for start in (100, 1000, 10_000)]
    assert attention == pytest.approx(attention[:1] * 3, rel=0.1)
    assert 1 < mean[0].item() / mean[10].item() < 3, "near keys are hardly changed"


@pytest.mark.parametrize("strategy", [PoSE(4096), PoSE(4096, chunks=5), RandomizedPositions(4096)], ids=repr)
def test_drawn_ids(strategy):
    drawn = strategy.sample_position_ids(list(range(10_000)), epoch=0, length=64)
    assert drawn.shape == (10_000, 64)
    assert (drawn.diff(dim=1) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() == 4095
    assert torch.equal(drawn[[3, 8]], strategy.sample_position_ids([3, 8], epoch=0, length=64))
    assert not torch.equal(drawn[3], drawn[4])
    assert not torch.equal(drawn[3], strategy.sample_position_ids([3], epoch=1, length=64)[0])
    reached = torch.zeros(4096, dtype=torch.bool)
    for token in range(64):
        reached[(drawn - drawn[:, token : token + 1]).abs().unique()] = True
    assert reached.all()
    assert len(strategy.sample_position_ids([-1], epoch=0, length=1)[0]) == 1
    assert not torch.equal(drawn[3], type(strategy)(4096, seed=1).sample_position_ids([3], epoch=0, length=64)[0])


def test_drawn_ids_never_leak_into_evaluation():
    rows = SequenceLayout.of(20, torch.device("cpu"))
    (drawn,), (plain,) = (position.branches(rows, KEY_SIZE) for position in (PoSE(4096), RoPE()))
    assert torch.equal(drawn.query.factor, plain.query.factor)
    method = AttentionMethod(scaling=InfoScale(6), position=PoSE(4096))
    ids = PoSE(4096).sample_position_ids([0], epoch=0, length=20)
    counted = method.plan(SequenceLayout.of(20, ids.device, position_ids=ids), KEY_SIZE).temperature
    assert torch.equal(counted, method.plan(rows, KEY_SIZE).temperature)  # τ counts keys, not ids


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Window(0), "radius must be at least 1, got 0"),
        (lambda: CosScale(-1), "scale must be positive, got -1"),
        (lambda: CosScale(float("nan")), "scale must be positive, got nan"),
        (lambda: LearnedCosScale(0), "initial must be positive, got 0"),
        (lambda: LogLength(1), "base must be above 1"),
        (lambda: LogLength(8, minimum=-1), "minimum must be at least 0"),
        (lambda: InfoScale(1), "train_length must be at least 2"),
        (lambda: RoPE(0.5), "base must be above 1"),
        (lambda: InfoScale().temperature(torch.tensor([3]), 8), "does not know train_length"),
        (lambda: InfoScale(32).with_train_length(64), "was given train_length 32, but the data has rows of 64"),
        (lambda: AttentionMethod(position=ALiBi(), visibility=LMInfinite()), "LMInfinite .* ALiBi rotates nothing"),
        (lambda: AttentionMethod(position=ReRoPE(), visibility=AttentionSinks()), "both replace far distances"),
        (
            lambda: AttentionMethod(position=ScaleInvariant(), visibility=LMInfinite()),
            "LMInfinite .* ScaleInvariant",
        ),
        (
            lambda: AttentionMethod(position=GainedReRoPE()),
            "GainedReRoPE gives far keys other distances",
        ),
        (lambda: ScaleInvariant(distance_scale=0), "distance_scale must be positive"),
        (lambda: ScaleInvariant(rotated_fraction=1.5), "rotated_fraction must be at least 0 and at most 1"),
        (lambda: AttentionMethod(position=PoSE(64), visibility=Window(3)), "PoSE trains on long distances"),
        (lambda: AttentionMethod(position=PoSE(64), visibility=AttentionSinks()), "PoSE trains on long distances"),
        (lambda: ReRoPE(100).with_train_length(64), "window 100 is above train_length 64.*beyond_training"),
        (lambda: ReRoPE(0), "window must be at least 1"),
        (lambda: LeakyReRoPE(factor=0.5), "factor must be at least 1"),
        (lambda: ALiBi(-1), "slope must be positive"),
        (lambda: KerpleLog(a=0), "a must be positive"),
        (lambda: Sandwich(size=3), "size must be a positive even number"),
        (lambda: YaRN(beta_fast=1, beta_slow=2), "beta_slow < beta_fast"),
        (lambda: PositionInterpolation(factor=0.5), "factor must be at least 1"),
        (lambda: DynamicNTK(alpha=0), "alpha must be at least 1"),
        (lambda: PoSE(64, chunks=1), "chunks must be at least 2"),
        (lambda: PoSE(64).sample_position_ids([0], 0, 65), "target_length 64 is below the 65 tokens"),
        (lambda: AttentionSinks(sinks=0), "sinks must be at least 1"),
        (lambda: Product([]), "scalings is empty"),
        (lambda: Llama4Temperature(alpha=-1), "alpha must be at least 0"),
        (lambda: ScalableSoftmax(train_length=1), "train_length must be at least 2"),
        (lambda: YaRNTemperature(factor=0.1), "factor must be at least 1"),
        (lambda: InfoScale(64, count="row"), "count must be one of: visible, length; got 'row'"),
        (lambda: Product([InfoScale(), LogLength(count="length")]), "count length and visible: give all factors"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_binding_fills_in_train_length():
    open_method = AttentionMethod(DotProduct(), InfoScale(), RoPE(), Window())
    bound = open_method.with_train_length(64)
    assert bound.scaling.train_length == 64
    assert bound.visibility.radius == 32
    assert open_method.scaling.train_length is None
    assert bound.with_train_length(64).describe() == bound.describe()
    assert TRAIN_LENGTH != 64  # the cases above would hide a hard-wired length
