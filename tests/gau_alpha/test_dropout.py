"""Dropout drops as many numbers as it says, independently of each other, and biases nothing."""

import math

import pytest
import torch

from gau_alpha.dropout import Dropout, drop


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.25, 0.5, 0.9])
def test_share_and_mean(rate):
    torch.manual_seed(0)
    count = 2**20 + 3  # no whole number of words
    y = drop(torch.ones(count), rate)
    dropped = (y == 0).double().mean().item()
    assert dropped == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / count) + 2**-17)
    kept = y[y != 0]
    assert kept.unique().numel() == 1
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=2**-17 / (1 - rate) + 1e-6)


def test_every_place_of_a_word_alike():
    """Four decisions come from a word; a sign bit that is always 0 would show in the last."""
    torch.manual_seed(0)
    places = (drop(torch.ones(2**18, 4), 0.1) == 0).double().mean(0)  # (4,)
    torch.testing.assert_close(places, torch.full((4,), 0.1).double(), atol=5 * math.sqrt(0.09 / 2**18), rtol=0)


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 768])
def test_neighbours_are_independent(lag):
    torch.manual_seed(0)
    dropped = (drop(torch.ones(2**20), 0.1) == 0).double() - 0.1
    correlation = (dropped[lag:] * dropped[:-lag]).mean().item() / 0.09
    assert abs(correlation) < 5 / math.sqrt(2**20)


def test_the_generator_decides():
    x = torch.randn(3, 5, 7)
    torch.manual_seed(1)
    first = drop(x, 0.5)
    assert not torch.equal(drop(x, 0.5), first)
    torch.manual_seed(1)
    assert torch.equal(drop(x, 0.5), first)


def test_the_gradient_is_that_of_what_was_kept():
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    y = drop(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(y == 0, 0.0, y / x.detach()).detach())


def test_nothing_is_drawn_where_nothing_is_dropped():
    x = torch.randn(5)
    before = torch.get_rng_state()
    assert drop(x, 0.0) is x
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(Dropout(0.5)(x), x)


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 0, 3), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_shape_and_dtype_stay(shape, dtype):
    y = drop(torch.ones(shape, dtype=dtype), 0.1)
    assert (y.shape, y.dtype) == (torch.Size(shape), dtype)
