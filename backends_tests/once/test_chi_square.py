"""Tests of the chi-square test that other tests use: its limit, and that it can fail."""

import itertools
import math

import numpy as np
import pytest

from backends_tests.chi_square import FALSE_ALARMS, assert_distribution, assert_uniform, limit


@pytest.mark.parametrize("degrees", [4, 10, 34, 130])
def test_the_limit_has_the_stated_rate_of_false_alarms(degrees):
    """Compare with the exact probability, a finite sum for an even number of degrees of freedom."""
    half = limit(degrees) / 2
    exceeded = math.exp(-half) * sum(half**i / math.factorial(i) for i in range(degrees // 2))
    assert 0.5 < exceeded / FALSE_ALARMS < 1.5


def test_even_draws_pass_and_uneven_or_dependent_ones_fail():
    first, second = np.random.default_rng(0).integers(6, size=(2, 2000)).tolist()
    pairs = list(itertools.product(range(6), repeat=2))
    assert_uniform(zip(first, second, strict=True), pairs)
    dependent = [
        (a, b if index % 3 else a) for index, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    assert_uniform((b for _, b in dependent), range(6))
    for draws, cells in (
        (map(min, first, second), range(6)),
        (dependent, pairs),
        ([*first, 6], range(6)),
        (first[:50], range(6)),
    ):
        with pytest.raises(AssertionError):
            assert_uniform(draws, cells)


def test_shares_may_differ():
    drawn = (np.random.default_rng(0).random(1000) < 0.25).tolist()
    assert_distribution(drawn, {True: 0.25, False: 0.75})
    with pytest.raises(AssertionError):
        assert_distribution(drawn, {True: 0.4, False: 0.6})
