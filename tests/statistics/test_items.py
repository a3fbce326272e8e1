"""Intervals over seeds and items by simulation and against the components of variance; McNemar against scipy."""

import numpy as np
import pytest
from scipy import stats

from studykit.statistics import mean_interval
from studykit.statistics.items import mcnemar, seeds_and_items


def drawn(rng, seeds, items, of_seeds, of_items, rest):
    """Return differences by seed and item, their mean over all seeds and items being 0."""
    parts = rng.normal(0, of_seeds, (seeds, 1)), rng.normal(0, of_items, (1, items))
    return sum(parts) + rng.normal(0, rest, (seeds, items))


def test_the_variance_is_the_sum_of_its_components():
    differences = drawn(np.random.default_rng(0), 5, 400, 0.05, 0.5, 0.3)
    found = seeds_and_items(differences, draws=4_000)
    assert found is not None
    assert found.low is not None
    rows, columns = differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - rows[:, None] - columns + differences.mean()
    residual = (rest**2).sum() / (4 * 399) / (5 * 400)
    of_seeds = rows.var(ddof=1) / 5
    variance = of_seeds + columns.var(ddof=1) / 400 - residual
    t = stats.t.ppf(0.975, 4 * (variance / of_seeds) ** 2)
    assert found.mean - found.low == pytest.approx(t * variance**0.5, rel=0.06)  # resampled, 4,000 draws
    assert found.n == 5


@pytest.mark.parametrize("parts", [(0.02, 0.3, 0.4), (0.0, 0.3, 0.4), (0.02, 0.0, 0.4)])
def test_it_covers_other_items_where_seeds_alone_do_not(parts):
    rng = np.random.default_rng(1)
    covered = seeds_alone = 0
    for _ in range(400):
        differences = drawn(rng, 5, 200, *parts)
        both, alone = seeds_and_items(differences, draws=200), mean_interval(differences.mean(axis=1).tolist())
        assert both is not None
        covered += (both.low or 0) <= 0 <= (both.high or 0)
        seeds_alone += (alone.low or 0) <= 0 <= (alone.high or 0)
    assert 0.92 < covered / 400 < 0.98
    assert parts[1] == 0 or seeds_alone / 400 < 0.9


def test_seeds_that_agree_leave_the_items_open_and_the_other_way_round():
    agree = np.tile([1.0, 0.0, 0.0, 1.0], (3, 1))
    found = seeds_and_items(agree)
    assert found is not None
    assert found.high is not None
    assert found.high > 0.6
    same = np.tile([[0.1], [0.2], [0.3]], (1, 50))
    alone, both = mean_interval([0.1, 0.2, 0.3]), seeds_and_items(same)
    assert both is not None
    assert (both.low, both.high) == pytest.approx((alone.low, alone.high))


def test_one_seed_or_item_has_no_interval():
    assert seeds_and_items(np.ones((1, 9))) is None
    assert seeds_and_items(np.ones((9, 1))) is None


@pytest.mark.parametrize(("ahead", "back"), [(0, 0), (3, 0), (9, 4), (40, 25), (25, 40)])
def test_mcnemar_is_the_binomial_test_of_the_items_that_differ(ahead, back):
    arm = np.array([1] * ahead + [0] * back + [1, 0] * 7)
    baseline = np.array([0] * ahead + [1] * back + [1, 0] * 7)
    found = mcnemar(arm, baseline)
    assert (found.arm, found.baseline) == (ahead, back)
    expected = stats.binomtest(ahead, ahead + back).pvalue if ahead + back else 1.0
    assert found.p_value == pytest.approx(expected)


def test_mcnemar_refuses_scores_that_are_not_0_or_1():
    with pytest.raises(ValueError, match="0 or 1 for each item"):
        mcnemar(np.array([0.5]), np.array([1]))
    with pytest.raises(ValueError, match="0 or 1 for each item"):
        mcnemar(np.array([1, 1]), np.array([1]))
