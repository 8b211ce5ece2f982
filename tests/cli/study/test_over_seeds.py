import math

import numpy as np
import pytest
from scipy import stats

from gau_alpha.cli.study.over_seeds import holm, mean_of, p_of_difference, p_of_equivalence, p_of_excess

# Two-sided 95 % quantiles of Student's t as printed in any table.
TABLE = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262}


@pytest.mark.parametrize("freedom", TABLE)
def test_the_interval_is_students(freedom):
    values = np.random.default_rng(freedom).normal(3.0, 0.5, freedom + 1)
    found = mean_of(list(values))
    error = math.sqrt(sum((x - values.mean()) ** 2 for x in values) / freedom) / math.sqrt(freedom + 1)
    assert found.value == pytest.approx(values.mean())
    assert found.half_width == pytest.approx(TABLE[freedom] * error, rel=2e-4)
    assert found.high - found.value == pytest.approx(found.value - found.low)
    assert found.num_seeds == freedom + 1


def test_a_single_seed_has_no_interval():
    found = mean_of([2.0])
    assert (found.value, found.low, found.high, found.half_width) == (2.0, None, None, None)
    assert not found.excludes_zero


def test_the_interval_covers_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(1.0, 2.0, (4000, 3))
    covered = sum(one.low <= 1.0 <= one.high for one in map(mean_of, draws))
    assert covered / len(draws) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_p_values_are_those_of_scipys_own_tests(seed):
    values = np.random.default_rng(seed).normal(0.3, 0.4, 3 + seed)
    assert p_of_difference(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    lower = stats.ttest_1samp(values, -0.5, alternative="greater").pvalue
    upper = stats.ttest_1samp(values, 0.5, alternative="less").pvalue
    assert p_of_equivalence(values, 0.5) == pytest.approx(max(lower, upper))
    beyond = stats.ttest_1samp(values, math.copysign(0.1, values.mean()), alternative="two-sided")
    if abs(values.mean()) > 0.1:
        assert p_of_excess(values, 0.1) == pytest.approx(beyond.pvalue)


def test_a_difference_that_is_always_the_same_is_certain():
    assert p_of_difference([0.5, 0.5, 0.5]) == 0
    assert p_of_difference([0.0, 0.0, 0.0]) == 1
    assert p_of_equivalence([0.0625] * 3, 0.125) == 0
    assert p_of_equivalence([0.25] * 3, 0.125) == 1


def test_holm_step_by_step():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_rejects_falsely_at_most_as_often_as_it_says():
    drawn = np.random.default_rng(1).uniform(size=(4000, 6))
    false = sum(min(holm(p_values)) < 0.05 for p_values in drawn)
    assert false / len(drawn) < 0.06
