"""Intervals over seeds and items by simulation and against resampling; McNemar against scipy."""

import numpy as np
import pytest
from scipy import stats

from studykit.statistics import mean_interval
from studykit.statistics.items import mcnemar, seeds_and_items


def drawn(rng, seeds, items, of_seeds, of_items, rest):
    """Return differences by seed and item, their mean over all seeds and items being 0."""
    parts = rng.normal(0, of_seeds, (seeds, 1)), rng.normal(0, of_items, (1, items))
    return sum(parts) + rng.normal(0, rest, (seeds, items))


def test_the_variance_is_that_of_resampling_seeds_and_items():
    differences = drawn(np.random.default_rng(0), 5, 400, 0.05, 0.5, 0.3)
    found = seeds_and_items(differences)
    assert found is not None
    assert found.low is not None

    def error_over(axis):
        chosen = stats.bootstrap(
            (np.arange(differences.shape[axis]),),
            lambda i: differences.take(i, axis).mean(),
            vectorized=False,
            n_resamples=2_000,
            rng=np.random.default_rng(1),
            method="percentile",
        )
        return chosen.standard_error**2

    of_seeds, of_items = error_over(0) * 5 / 4, error_over(1)  # five seeds: resampling sees 4 / 5 of the variance
    rest = stats.bootstrap(
        (np.arange(400),),
        lambda i: differences.take(i, 1).mean(axis=1),
        vectorized=False,
        n_resamples=2_000,
        rng=np.random.default_rng(2),
        method="percentile",
    )
    residual = (rest.bootstrap_distribution - rest.bootstrap_distribution.mean(axis=0)).var(axis=1, ddof=1).sum() / 20
    variance = of_seeds + of_items - residual
    t = stats.t.ppf(0.975, 4 * (variance / of_seeds) ** 2)
    assert found.mean - found.low == pytest.approx(t * variance**0.5, rel=0.06)  # 2,000 draws
    assert found.n == 5


@pytest.mark.parametrize("parts", [(0.02, 0.3, 0.4), (0.0, 0.3, 0.4), (0.02, 0.0, 0.4)])
def test_it_covers_other_items_where_seeds_alone_do_not(parts):
    rng = np.random.default_rng(1)
    covered = seeds_alone = 0
    for _ in range(400):
        differences = drawn(rng, 5, 200, *parts)
        both, alone = seeds_and_items(differences), mean_interval(differences.mean(axis=1).tolist())
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
