"""The statistics behind the claims: against scipy, numbers by hand, and their error rates."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

import fedlora_kit.study.statistics
from fedlora_kit.study.statistics import mean_interval, spread_ratio


def test_examples_in_the_docstrings():
    assert doctest.testmod(fedlora_kit.study.statistics).failed == 0


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_mean_interval_against_scipy(values):
    assume(np.std(values) > 1e-6)
    mine = mean_interval(values)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert np.allclose([mine.lower, mine.upper], [theirs.low, theirs.high], rtol=1e-6, atol=1e-9)
    assert mine.n == len(values)


def test_equal_values_have_an_interval_without_width():
    interval = mean_interval([0.1, 0.1, 0.1])
    assert (interval.sd, interval.lower) == (0.0, interval.upper)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [[1.0, 2.0], [3.0, 4.0]]])
def test_no_interval_without_two_finite_values(values):
    with pytest.raises(ValueError, match="two finite"):
        mean_interval(values)


def test_spread_ratio_by_hand():
    """Variances 16 and 4 (cell a), 4 and 1 (cell b), three seeds: F = 10 / 2.5 with 4 and 4 df."""
    large = np.array([[-4, 10], [0, 12], [4, 14]])
    small = np.array([[1, 51], [3, 50], [5, 49]])
    ratio = spread_ratio(large, small)
    assert (ratio.f, ratio.df_large, ratio.df_small) == (4.0, 4, 4)
    assert ratio.ratio == 2.0
    assert ratio.p == pytest.approx(13 / 125)  # F(4, 4): P(F > x) = (1 + 3x) / (1 + x)³
    critical = 9.60453  # printed tables: F(4, 4) at .975
    assert ratio.lower**2 == pytest.approx(4 / critical, rel=1e-5)
    assert ratio.upper**2 == pytest.approx(4 * critical, rel=1e-5)


@given(
    st.integers(2, 6),
    st.integers(1, 3),
    st.floats(0.1, 10),
    st.integers(0, 1000),
)
def test_interval_and_p_of_a_spread_agree(seeds, cells, scale, draw):
    rng = np.random.default_rng(draw)
    ratio = spread_ratio(scale * rng.normal(size=(seeds, cells)), rng.normal(size=(seeds, cells)))
    assert (ratio.p < 0.025) == (ratio.lower > 1)
    assert ratio.lower < ratio.ratio < ratio.upper


def test_error_rates_of_the_tests_without_any_effect():
    """2.5 % of 4,000 null experiments pass, give or take 4 standard errors; the interval covers in 95 %."""
    rng = np.random.default_rng(1)
    near = 4 * np.sqrt(0.025 * 0.975 / 4000)
    means = [mean_interval(rng.normal(size=5)) for _ in range(4000)]
    assert abs(np.mean([i.lower > 0 for i in means]) - 0.025) < near
    assert abs(np.mean([i.lower <= 0 <= i.upper for i in means]) - 0.95) < 2 * near
    spreads = [spread_ratio(rng.normal(size=(4, 3)), rng.normal(size=(4, 3))) for _ in range(4000)]
    assert abs(np.mean([s.lower > 1 for s in spreads]) - 0.025) < near


def test_shared_seeds_make_the_spread_test_cautious():
    rng = np.random.default_rng(2)
    shared = rng.normal(size=(2000, 5, 1))
    own = rng.normal(size=(2, 2000, 5, 1))
    passed = [spread_ratio(s + 0.5 * a, s + 0.5 * b).lower > 1 for s, a, b in zip(shared, *own, strict=True)]
    assert np.mean(passed) < 0.01


@pytest.mark.parametrize(
    ("large", "small"),
    [
        ([[1.0]], [[1.0], [2.0]]),
        ([1.0, 2.0], [[1.0], [2.0]]),
        ([[1.0], [np.inf]], [[1.0], [2.0]]),
        ([[1.0], [1.0]],) * 2,
    ],
)
def test_no_spread_ratio_without_spread(large, small):
    with pytest.raises(ValueError, match="spread"):
        spread_ratio(large, small)
