import numpy as np
import pytest

from datamodules import TokenMasking
from datamodules.masking import IGNORED
from datamodules.randomness import Purpose, random_order, random_words
from gau_alpha.vocabulary import Vocabulary

VOCABULARY = Vocabulary(size=50, mask_id=4, pad_id=0, special_ids=(1, 2, 3, 17))
ORDINARY = np.setdiff1d(np.arange(50), VOCABULARY.special_ids)


def make_rows(num_rows: int, length: int, special_share: float = 0.0, seed: int = 0):
    random = np.random.default_rng(seed)
    input_ids = random.choice(ORDINARY, size=(num_rows, length))
    special = random.random(input_ids.shape) < special_share
    input_ids[special] = random.choice([1, 2, 3, 17], size=int(special.sum()))
    return input_ids, np.ones_like(input_ids), np.arange(num_rows)


def apply(masking, rows, seed=0, epoch=0):
    return masking.apply(*rows, seed, epoch, VOCABULARY)


def test_eighty_ten_ten():
    """Over 100,000 targets each share lies within four standard deviations."""
    rows = make_rows(2000, 64)
    masked, labels = apply(TokenMasking(rate=0.8), rows)
    target = labels != IGNORED
    n = int(target.sum())
    assert n > 100_000
    np.testing.assert_array_equal(labels[target], rows[0][target])
    np.testing.assert_array_equal(masked[~target], rows[0][~target])
    # one random token in 45 happens to be the original
    coincidence = 0.1 / len(ORDINARY)
    for share, expected in (
        ((masked == 4)[target].mean(), 0.8),
        ((masked == rows[0])[target].mean(), 0.1 + coincidence),
        (((masked != rows[0]) & (masked != 4))[target].mean(), 0.1 - coincidence),
    ):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)


@pytest.mark.parametrize(("mask_fraction", "random_fraction"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.7, 0.3)])
def test_extreme_shares(mask_fraction: float, random_fraction: float):
    rows = make_rows(50, 64)
    masked, labels = apply(TokenMasking(0.5, mask_fraction, random_fraction), rows)
    target = labels != IGNORED
    is_mask = (masked == 4)[target]
    unchanged = (masked == rows[0])[target]
    assert is_mask.mean() == pytest.approx(mask_fraction, abs=0.05)
    assert unchanged.mean() == pytest.approx(1 - mask_fraction - random_fraction, abs=0.05)


@pytest.mark.parametrize("length", [64, 10, 37])
def test_rate_is_unbiased(length: int):
    rows = make_rows(-(-100_000 // length), length)
    _, labels = apply(TokenMasking(rate=0.15), rows)
    assert (labels != IGNORED).mean() == pytest.approx(0.15, rel=0.01)


def test_number_of_targets_is_rounded_at_random_and_never_further():
    _, labels = apply(TokenMasking(rate=0.15), make_rows(500, 64))
    assert set((labels != IGNORED).sum(axis=1).tolist()) == {9, 10}  # 0.15 * 64 = 9.6


def test_every_token_is_a_target_equally_often():
    _, labels = apply(TokenMasking(rate=0.25), make_rows(8000, 16))
    share = (labels != IGNORED).mean(axis=0)
    assert np.abs(share - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 8000)


def test_every_row_with_an_ordinary_token_has_a_target():
    input_ids, attention_mask, sample_ids = make_rows(300, 8)
    input_ids[:, 1:] = 3  # special
    input_ids[0, 0] = 3  # row 0 has no ordinary token at all
    attention_mask[1, 0] = 0  # row 1's only ordinary token is padding
    _, labels = apply(TokenMasking(rate=0.01), (input_ids, attention_mask, sample_ids))
    assert (labels != IGNORED).sum(axis=1).tolist() == [0, 0] + [1] * 298


def test_special_and_padding_are_never_touched():
    input_ids, attention_mask, sample_ids = make_rows(500, 64, special_share=0.3)
    attention_mask[:, 50:] = 0
    input_ids[:, 50:] = 5  # ordinary ids, so that only the attention mask can protect them
    masked, labels = apply(TokenMasking(rate=1.0), (input_ids, attention_mask, sample_ids))
    special = np.isin(input_ids, VOCABULARY.special_ids)
    assert special.any()
    untouched = special | (attention_mask == 0)
    np.testing.assert_array_equal(labels != IGNORED, ~untouched)
    np.testing.assert_array_equal(masked[untouched], input_ids[untouched])


def test_random_tokens_are_uniform_over_ordinary_ids():
    rows = make_rows(2000, 64)
    masked, _ = apply(TokenMasking(1.0, 0.0, 1.0), rows)
    counts = np.bincount(masked.ravel(), minlength=50)
    assert counts[list(VOCABULARY.special_ids)].sum() == 0
    expected = masked.size / len(ORDINARY)
    chi_square = ((counts[ORDINARY] - expected) ** 2 / expected).sum()
    degrees = len(ORDINARY) - 1
    assert abs(chi_square - degrees) < 4 * np.sqrt(2 * degrees)


def test_a_row_is_masked_the_same_in_any_batch():
    rows = make_rows(40, 64)
    masked, labels = apply(TokenMasking(), rows, seed=3, epoch=2)
    chosen = np.array([31, 7, 8])
    alone = apply(TokenMasking(), tuple(part[chosen] for part in rows), seed=3, epoch=2)
    np.testing.assert_array_equal(alone[0], masked[chosen])
    np.testing.assert_array_equal(alone[1], labels[chosen])


def test_more_padding_changes_nothing():
    input_ids, attention_mask, sample_ids = make_rows(40, 32)
    wide = np.pad(input_ids, ((0, 0), (0, 9))), np.pad(attention_mask, ((0, 0), (0, 9))), sample_ids
    masked, labels = apply(TokenMasking(), (input_ids, attention_mask, sample_ids))
    wide_masked, wide_labels = apply(TokenMasking(), wide)
    np.testing.assert_array_equal(wide_masked[:, :32], masked)
    np.testing.assert_array_equal(wide_labels[:, :32], labels)


def test_masks_follow_seed_epoch_and_sample():
    rows = make_rows(20, 64)
    first = apply(TokenMasking(), rows)[1]
    np.testing.assert_array_equal(apply(TokenMasking(), rows)[1], first)
    input_ids, attention_mask, sample_ids = rows
    for other in (
        apply(TokenMasking(), rows, seed=1)[1],
        apply(TokenMasking(), rows, epoch=1)[1],
        apply(TokenMasking(), (input_ids, attention_mask, sample_ids + 100))[1],
    ):
        assert ((other != IGNORED) != (first != IGNORED)).any(axis=1).all()


def test_input_is_left_alone():
    rows = make_rows(5, 16)
    before = rows[0].copy()
    apply(TokenMasking(rate=1.0), rows)
    np.testing.assert_array_equal(rows[0], before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "rate=0.0 must lie in"),
        ({"rate": 1.5}, "rate=1.5 must lie in"),
        ({"rate": float("nan")}, "rate=nan must lie in"),
        ({"mask_fraction": 0.8, "random_fraction": 0.3}, "mask_fraction=0.8 and random_fraction=0.3"),
        ({"mask_fraction": -0.1}, "mask_fraction=-0.1"),
        ({"random_fraction": -0.1}, "random_fraction=-0.1"),
    ],
)
def test_bad_arguments(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        TokenMasking(**arguments)


def test_words_are_those_of_philox():
    """Pinned by NumPy's own generator at the same address: the order of key and counter must never change."""
    words = random_words(5, Purpose.MASKING, 7, [2, 9], 13)
    for row, stream in enumerate((2, 9)):
        expected = np.random.Philox(key=[5, 3], counter=[0, 0, 7, stream]).random_raw(13)
        np.testing.assert_array_equal(words[row], expected)
    np.testing.assert_array_equal(random_words(5, Purpose.MASKING, 7, [9, 2], 6)[1], words[0, :6])


def test_purposes_do_not_share_words():
    words = [tuple(random_words(0, purpose, 0, [0], 4)[0]) for purpose in Purpose]
    assert len(set(words)) == len(Purpose)


def test_random_order_is_a_fair_permutation():
    orders = np.array([random_order(seed, Purpose.SHUFFLE, 0, 5) for seed in range(4000)])
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(5), (4000, 1)))
    shares = np.array([(orders == value).mean(axis=0) for value in range(5)])
    assert np.abs(shares - 0.2).max() < 4 * np.sqrt(0.2 * 0.8 / 4000)
