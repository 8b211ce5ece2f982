"""Temperatures for keys drawn at random on a sphere, against keys drawn at random on a sphere."""

import math

import numpy as np
import pytest
import torch

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaForMaskedLM
from gau_alpha.scaling import InfoScale, RandomKeysScale
from gau_alpha.scaling.random_keys import cosines

D, TRAIN_LENGTH = 128, 64


def drawn(n, rows, seed=0):
    """Cosines of a query with ``n`` random keys, many times over: (rows, n)."""
    generator = np.random.default_rng(seed)
    first = generator.standard_normal((rows, n))
    return first / np.sqrt(first**2 + generator.chisquare(D - 1, (rows, n)))


def mean_entropy(cosine, sharpness):
    score = sharpness * cosine
    weights = np.exp(score - score.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return float(-(weights * np.log(np.maximum(weights, 1e-300))).sum(1).mean())


def tau(scaling, n):
    return float(scaling.temperature(torch.tensor([n]), D))


@pytest.mark.slow
@pytest.mark.parametrize("sharpness", [8.0, 16.0, 32.0, 64.0])
def test_entropy_stays_where_it_was(sharpness):
    entropy = mean_entropy(drawn(TRAIN_LENGTH, 20_000), sharpness)
    scaling = RandomKeysScale([entropy], TRAIN_LENGTH)
    for n, rows in ((256, 4_000), (1024, 2_000), (4096, 700)):
        cosine = drawn(n, rows, seed=n)
        assert abs(mean_entropy(cosine, sharpness * tau(scaling, n)) - entropy) < 0.12, n


@pytest.mark.parametrize(("sharpness", "at_64", "at_4096"), [(16.0, 3.3, 6.5), (32.0, 2.0, 3.3), (64.0, 0.9, 1.2)])
def test_infoscale_does_not_keep_it(sharpness, at_64, at_4096):
    """It follows the largest cosine: within 10 %, as that is drawn."""
    few, many = drawn(64, 10_000), drawn(4096, 300)
    growth = tau(InfoScale(64), 4096)
    assert mean_entropy(few, sharpness) == pytest.approx(at_64, abs=0.1)
    assert mean_entropy(many, sharpness * growth) == pytest.approx(at_4096, abs=0.2)
    assert growth == pytest.approx(many.max(1).mean() / few.max(1).mean(), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("key_size", [2, 3, 8, 128])
def test_cosines_are_quantiles(key_size):
    keys = np.random.default_rng(0).standard_normal((400_000, key_size))
    some = np.sort(keys[:, 0] / np.linalg.norm(keys, axis=1))
    expected = some.reshape(40, -1).mean(1)
    found = cosines(400, key_size).numpy()
    np.testing.assert_allclose(found.reshape(40, -1).mean(1), expected, atol=0.01)
    np.testing.assert_allclose(found, -found[::-1], atol=1e-7)


def test_one_up_to_train_length_and_smooth_beyond():
    scaling = RandomKeysScale([2.0], TRAIN_LENGTH)
    n = torch.arange(1, 300_000, 997)
    temperature = scaling.temperature(n, D)
    assert (temperature[n <= TRAIN_LENGTH] == 1).all()
    assert (temperature.diff() >= 0).all()
    assert temperature.isfinite().all()


def test_layers_have_their_own_entropy():
    scaling = RandomKeysScale([1.0, 3.0], TRAIN_LENGTH)
    model = GAUAlphaForMaskedLM(GAUAlphaConfig(20, 16, 32, 8, 2), AttentionMethod(scaling=scaling))
    n = torch.tensor([1024])
    for block, entropy in zip(model.gau_alpha.encoder.blocks(), [1.0, 3.0], strict=True):
        alone = RandomKeysScale([entropy], TRAIN_LENGTH)
        assert torch.equal(block.gau.method.scaling.temperature(n, 8), alone.temperature(n, 8))
    with pytest.raises(ValueError, match="entropies for 2 layers, the model has 3"):
        GAUAlphaForMaskedLM(GAUAlphaConfig(20, 16, 32, 8, 3), AttentionMethod(scaling=scaling))
    with pytest.raises(ValueError, match="take the method of a layer"):
        scaling.temperature(n, 8)


def test_even_attention_is_refused():
    """Its entropy is that of any small sharpness: there is nothing to solve for."""
    even = math.log(TRAIN_LENGTH) - 0.1
    for build in (
        lambda: RandomKeysScale([1.0, even], TRAIN_LENGTH),
        lambda: RandomKeysScale([1.0, even]).with_train_length(TRAIN_LENGTH),
    ):
        with pytest.raises(ValueError, match=r"4\.059 nats in layer 1, within 0\.2 of ln train_length = 4\.159"):
            build()
    RandomKeysScale([even - 0.11], TRAIN_LENGTH)
