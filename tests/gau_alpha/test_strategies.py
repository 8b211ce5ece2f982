"""All strategies, found by themselves: formulas against slow loops, and the properties that hold for every one."""

import math

import numpy as np
import pytest
import torch
from slow_attention import attention
from strategy_cases import CASES, KEY_SIZE, TRAIN_LENGTH

from gau_alpha.kernels import Blocked, Reference
from gau_alpha.method import AttentionMethod
from gau_alpha.position import RoPE, Rotary, rotate
from gau_alpha.presets import AXIS_TYPES, build_strategies, known_strategies
from gau_alpha.rows import Rows
from gau_alpha.scaling import InfoScale, LogLength, NoScaling
from gau_alpha.similarity import CosScale, DotProduct
from gau_alpha.visibility import Full, Window, count_visible_keys

KERNELS = {"reference": Reference(), "blocked 1": Blocked(1), "blocked 5": Blocked(5), "blocked 256": Blocked()}


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
    return Rows.layout(
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
            expected = attention(q, k, value[row], case.score, case.temperature, case.sees, real[row], segments[row])
            np.testing.assert_allclose(ours[row].numpy(), expected, atol=1e-5)


def test_every_strategy_has_a_slow_reference():
    tested = {type(strategy).__name__ for case in CASES.values() for _, strategy in case.method.axes()}
    shipped = {name for line in known_strategies().splitlines() for name in line.split(": ")[1].split(", ")}
    assert shipped == tested
    assert len(shipped) >= 8


@pytest.mark.parametrize("name", CASES)
def test_described_and_built_again(name):
    method = CASES[name].method
    again = AttentionMethod(**build_strategies(method.describe()))
    assert again.describe() == method.describe()
    assert list(method.describe()) == list(AXIS_TYPES)


@pytest.mark.parametrize("name", CASES)
def test_shifting_all_positions_changes_nothing(name):
    method, length = CASES[name].method, 19
    query, key, value = torch.randn(3, 1, length, KEY_SIZE).unbind()
    prepared = method.similarity.prepare(query, key)
    here, there = (
        Reference()(*prepared, value, method.plan(Rows.layout(length, query.device, position_ids=ids), KEY_SIZE))
        for ids in (torch.arange(length)[None], torch.arange(length)[None] + 1000)
    )
    torch.testing.assert_close(here, there, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_reversing_the_row_reverses_the_output(name):
    method = CASES[name].method
    query, key, value = torch.randn(3, 1, 19, KEY_SIZE).unbind()
    prepared = method.similarity.prepare(query, key)
    plan = method.plan(Rows.layout(19, query.device), KEY_SIZE)
    # Reversed, a key that stood 3 to the right stands 3 to the left. Conjugating each pair of dimensions turns it back.
    mirror = torch.tensor([1.0, -1.0]).repeat(KEY_SIZE // 2)
    forward = Reference()(*prepared, value, plan)
    backward = Reference()(*(x.flip(1) * mirror for x in prepared), value.flip(1), plan).flip(1)
    torch.testing.assert_close(forward, backward, atol=2e-6, rtol=0)


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
    rows = Rows.layout(50, x.device)
    for position in rotations():
        for view in position.views(rows, KEY_SIZE):
            for rotation in (view.query, view.key):
                torch.testing.assert_close(rotate(x, rotation).norm(dim=-1), x.norm(dim=-1))
    assert rotations()


def test_far_angles_are_exact():
    """At position 131,071 float32 frequencies would be off by 0.007 rad, more than neighbours differ by at low ones."""
    far = torch.tensor([[131_071]])
    rows = Rows.layout(1, far.device, position_ids=far)
    angles = RoPE().angles(far, rows, 128)[0, 0]
    exact = np.array([131_071 * 10_000.0 ** (-2 * m / 128) for m in range(64)])
    np.testing.assert_allclose(angles.numpy(), exact, atol=1e-3, rtol=0)
    (view,) = RoPE().views(rows, 128)
    np.testing.assert_allclose(view.query.cos[0, 0].numpy(), np.cos(exact), atol=1e-6)
    np.testing.assert_allclose(view.query.sin[0, 0].numpy(), np.sin(exact), atol=1e-6)


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
    rows = Rows.layout(10, torch.device("cpu"))
    index = torch.arange(10)
    assert Window(9).mask(index, index, rows).all()
    assert torch.equal(Window(9).num_visible_keys(rows), Full().num_visible_keys(rows).expand(1, 10))


def test_visible_set_of_a_window():
    index = torch.arange(6)
    seen = Window(1).mask(index, index, Rows.layout(6, index.device))[0].int()
    assert seen.tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Window(0), "radius must be positive, got 0"),
        (lambda: CosScale(-1), "scale must be positive, got -1"),
        (lambda: CosScale(float("nan")), "scale must be positive, got nan"),
        (lambda: LogLength(1), "base must be above 1"),
        (lambda: LogLength(8, minimum=-1), "minimum must be 0 or more"),
        (lambda: InfoScale(1), "train_length must be at least 2"),
        (lambda: RoPE(0.5), "base must be above 1"),
        (lambda: InfoScale().temperature(torch.tensor([3]), 8), "does not know train_length"),
        (lambda: InfoScale(32).bound(64), "was given train_length 32, but the data has rows of 64"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_binding_fills_in_train_length():
    open_method = AttentionMethod(DotProduct(), InfoScale(), RoPE(), Window())
    bound = open_method.bound(64)
    assert bound.scaling.train_length == 64
    assert bound.visibility.radius == 32
    assert open_method.scaling.train_length is None
    assert bound.bound(64).describe() == bound.describe()
    assert TRAIN_LENGTH != 64  # the cases above would hide a hard-wired length
