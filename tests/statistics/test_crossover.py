"""The end of an advantage: by hand, against a search over budgets, and by simulation where some seeds never cross."""

import math

import numpy as np
import pytest

from studykit.statistics import Interval, crossover, mean_interval


def by_seed(*rows):
    """Return the differences of each budget by seed."""
    return [dict(enumerate(row)) for row in rows]


def test_by_hand_in_log_budget():
    # 3 to -1 over one decade: three quarters of the way from 100 to 1,000
    found = crossover([10, 100, 1_000], by_seed([4.0], [3.0], [-1.0]))
    assert found is not None
    assert found.budget == pytest.approx(100 * 10**0.75)
    assert (found.low, found.high, found.n, found.crossing) == (None, None, 1, 1)


def contains_zero(interval: Interval) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= 0 <= interval.high


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_is_where_the_t_interval_of_the_interpolated_difference_contains_zero(seed):
    rng = np.random.default_rng(seed)
    rows = np.array([[4.0], [2.0], [-1.0], [-4.0]]) + rng.normal(0, 1, (4, 5))
    budgets = [10, 100, 1_000, 10_000]
    found = crossover(budgets, by_seed(*rows))
    assert found is not None
    fine = np.linspace(1, 4, 6001)
    curves = np.stack([np.interp(fine, [1, 2, 3, 4], rows[:, s]) for s in range(5)])
    inside = [10**x for x, column in zip(fine, curves.T, strict=True) if contains_zero(mean_interval(column.tolist()))]
    low, high = found.low or 10, found.high or 10_000
    assert (math.log10(low), math.log10(high)) == pytest.approx(
        (math.log10(inside[0]), math.log10(inside[-1])), abs=1e-3
    )
    assert low <= (found.budget or 0) <= high


def test_a_difference_that_reaches_zero_exactly_ends_there():
    found = crossover([100, 1_000], by_seed([1.0], [0.0]))
    assert found is not None
    assert found.budget == pytest.approx(1_000)


@pytest.mark.parametrize(
    "differences",
    [
        [3.0, 2.0, 1.0],  # above zero throughout
        [-1.0, -2.0, -3.0],  # below throughout
        [-1.0, 1.0, 2.0],  # rises through zero: no advantage ends
        [0.0, 0.0, 0.0],
        [5.0],
        [],
    ],
)
def test_an_advantage_that_never_ends_has_no_crossover(differences):
    budgets = [10**i for i in range(1, 1 + len(differences))]
    assert crossover(budgets, by_seed(*([d] for d in differences))) is None
    assert crossover(budgets, by_seed(*([d, d + 1e-3 * d] for d in differences))) is None


def test_an_end_that_is_not_reached_yet_is_open():
    found = crossover([10, 100, 1_000], by_seed([4.0, 5.0, 6.0], [3.0, 4.0, 5.0], [-0.5, 1.0, 2.0]))
    assert found is not None
    assert found.budget is None  # the mean stays above zero
    assert found.low is not None
    assert 100 < found.low < 1_000
    assert found.high is None
    assert (found.n, found.crossing) == (3, 1)


def test_the_first_of_several_crossings_counts():
    found = crossover([10, 100, 1_000, 10_000], by_seed([1.0], [-1.0], [1.0], [-1.0]))
    assert found is not None
    assert found.budget == pytest.approx(10**1.5)


def test_seeds_that_are_missing_at_a_budget_count_where_they_are():
    found = crossover([10, 1_000], [{0: 1.0, 1: 1.0, 2: 1.0}, {0: -3.0, 1: 0.5}])
    assert found is not None
    assert (found.n, found.crossing) == (2, 1)
    assert crossover([10, 1_000], [{0: 5.0, 1: 1.0}, {0: 5.0, 1: -1.0}]) is not None  # t(1) reaches far
    assert crossover([10, 1_000], [{0: 1.0}, {1: 1.0}]) is None


def test_a_planted_crossover_is_covered_though_most_seeds_of_many_trials_never_cross():
    rng, logs, truth = np.random.default_rng(0), np.log([500, 2_000, 8_000]), np.array([3.0, 1.0, -0.5])
    planted = math.exp(logs[1] + (logs[2] - logs[1]) * 1.0 / 1.5)
    covered, never = 0, 0
    for _ in range(400):
        rows = truth[:, None] + rng.normal(0, 1, (3, 5)) + rng.normal(0, 0.5, 5)
        found = crossover([500, 2_000, 8_000], by_seed(*rows))
        covered += found is not None and (found.low or 0) <= planted <= (found.high or math.inf)
        never += found is None or found.crossing < found.n
    assert never > 200
    assert covered / 400 > 0.92  # three standard errors under 95%
