"""Intervals against scipy, by hand and by simulation; permutation by enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from studykit.statistics import Interval, mean_interval, paired_difference, sign_flip_p


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_interval_is_that_of_scipy(n, confidence):
    values = np.random.default_rng(n).normal(3, 2, n)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    found = mean_interval(values.tolist(), confidence)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert (found.mean, found.n) == (pytest.approx(values.mean()), n)


def test_the_interval_by_hand():
    # s = 2, n = 4, t(3; 0.975) = 3.182446
    found = mean_interval([1.0, 3.0, 3.0, 5.0])
    half = 3.182446 * math.sqrt(8 / 3) / 2
    assert found.mean == 3.0
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), abs=1e-6)


def test_95_percent_intervals_of_three_seeds_hold_the_truth_95_times_in_100():
    draws = np.random.default_rng(0).normal(1.5, 0.3, (2000, 3))
    intervals = [mean_interval(list(row)) for row in draws]
    covered = np.mean([i.low is not None and i.high is not None and i.low <= 1.5 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=0.015)  # three standard errors of 2,000 trials


def test_one_value_has_no_bounds():
    found = mean_interval([4.5])
    assert found == Interval(4.5, None, None, 1)
    assert not found.excludes_zero


@pytest.mark.parametrize(
    ("low", "high", "answer"), [(0.1, 2.0, True), (-2.0, -0.1, True), (-0.1, 0.1, False), (0.0, 1.0, False)]
)
def test_an_interval_excludes_zero_only_on_one_side_of_it(low, high, answer):
    assert Interval((low + high) / 2, low, high, 3).excludes_zero is answer


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_no_or_infinite_values_are_refused(values):
    with pytest.raises(ValueError, match="finite values are needed"):
        mean_interval(values)
    with pytest.raises(ValueError, match="finite values are needed"):
        sign_flip_p(values)


def test_the_paired_difference_is_the_paired_t_interval():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 5, 6)
    a, b = shared + rng.normal(1, 0.2, 6), shared + rng.normal(0, 0.2, 6)
    low, high = stats.ttest_rel(a, b).confidence_interval()
    found = paired_difference(a.tolist(), b.tolist())
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low is not None
    assert found.low > 0
    apart = mean_interval(b.tolist())  # what both share is far larger than what they differ by
    assert apart.high is not None
    assert apart.low is not None
    assert apart.high - apart.low > 5 * (high - low)


def test_pairs_are_made_by_seed_and_not_by_order():
    found = paired_difference({2: 5.0, 0: 1.0, 7: 100.0}, {0: 0.0, 2: 3.0, 9: -100.0})
    assert (found.mean, found.n) == (1.5, 2)
    assert paired_difference({0: 1.0}, {0: 0.25}) == Interval(0.75, None, None, 1, 1.0)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="received 2 and 1 values"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="two mappings by seed or two sequences"):
        paired_difference({0: 1.0}, [1.0])
    with pytest.raises(ValueError, match="finite values are needed"):
        paired_difference({0: 1.0}, {1: 1.0})


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_the_p_value_is_the_share_of_sign_patterns_as_extreme(n):
    x = np.random.default_rng(n).normal(0.5, 1, n)
    extreme = [abs(np.dot(signs, x)) >= abs(x.sum()) - 1e-12 for signs in itertools.product((-1, 1), repeat=n)]
    assert sign_flip_p(x) == pytest.approx(np.mean(extreme))


def test_p_values_by_hand():
    assert sign_flip_p([1.0, 1.0, 1.0]) == 0.25  # its least at three seeds
    assert sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    assert sign_flip_p([5.0, -1.0]) == 1.0  # sums 4, 6, -6, -4: all as extreme as 4
    assert sign_flip_p([0.1] * 5) == pytest.approx(2 / 32)
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_p(np.full(12, 0.3)) == 2 / 2**12


def test_many_pairs_are_sampled_reproducibly_and_never_to_zero():
    strong = np.full(30, 1.0)
    assert sign_flip_p(strong) == sign_flip_p(strong) == pytest.approx(1 / 20_000)
    weak = np.random.default_rng(3).normal(0.2, 1, 30)
    assert sign_flip_p(weak) == pytest.approx(stats.ttest_1samp(weak, 0).pvalue, abs=0.03)
