"""Verdicts by hand, power against scipy's noncentral t, Holm against a slow definition."""

import math

import numpy as np
import pytest
from scipy import stats

from studykit.statistics import Interval, mean_interval
from studykit.statistics.verdicts import (
    detectable_effect,
    holm,
    noise_floor,
    seeds_needed,
    spread_of,
    t_p_value,
    verdict,
    verdicts,
)


def interval(mean, half, n=5):
    return Interval(mean, mean - half, mean + half, n)


@pytest.mark.parametrize(
    ("mean", "half", "word"),
    [
        (3.0, 1.0, "helps"),
        (-3.0, 1.0, "hurts"),
        (0.4, 0.5, "tie"),
        (0.5, 0.25, "tie"),  # clear of zero, and too small to matter: tie comes first
        (0.5, 0.5, "tie"),  # up to the margin itself
        (0.5, 0.6, "cannot tell"),
        (0.9, 0.2, "helps"),  # the interval reaches over the margin
        (0.0, 5.0, "cannot tell"),
    ],
)
def test_the_words_by_hand(mean, half, word):
    assert verdict(interval(mean, half), tie=1.0).word == word


def test_where_less_is_better_a_negative_difference_helps():
    assert verdict(interval(-3.0, 1.0), tie=1.0, higher_is_better=False).word == "helps"
    assert verdict(interval(3.0, 1.0), tie=1.0, higher_is_better=False).word == "hurts"


def test_phrases():
    shared = {"tie": 0.01, "unit": "nats per token", "digits": 3}
    assert str(verdict(interval(0.0, 0.001), **shared)) == "tie (no difference larger than 0.010 nats per token)"
    assert str(verdict(interval(-0.5, 0.1), higher_is_better=False, **shared)) == "helps"
    assert str(verdict(Interval(4.0, None, None, 1), tie=1.0)) == "cannot tell (one seed gives no interval)"
    assert str(verdict(interval(0.0, 1.5), tie=0.0)) == "cannot tell (needs more than 1,000 seeds)"
    assert str(verdict(interval(1.0, 9.0), tie=0.1)) == "cannot tell (needs about 420 seeds)"  # of 415


def test_a_verdict_is_plain_json_data():
    plain = verdict(interval(0.0, 1.5), tie=0.0).plain()
    assert plain["word"] == "cannot tell"
    assert plain["seeds_needed"] is None
    assert plain["phrase"] == "cannot tell (needs more than 1,000 seeds)"


def test_several_contrasts_share_the_level():
    one = interval(3.0, 2.9)  # p just under 5%
    assert t_p_value(one) < 0.05
    assert verdict(one, tie=0.5).word == "helps"
    assert verdict(one, tie=0.5, comparisons=2).word == "cannot tell"
    both = verdicts({"strong": interval(3.0, 0.5), "weak": one}, tie=0.5)
    assert [v.word for v in both.values()] == ["helps", "helps"]  # the strong one is out of the way
    both = verdicts({"none": interval(0.0, 5.0), "weak": one, "one seed": Interval(1.0, None, None, 1)}, tie=0.5)
    assert [v.word for v in both.values()] == ["cannot tell"] * 3
    assert both["weak"].p_value == pytest.approx(3 * t_p_value(one))


def test_the_p_value_and_the_spread_are_those_of_the_values():
    values = np.random.default_rng(0).normal(1, 2, 7)
    found = mean_interval(values.tolist())
    assert spread_of(found) == pytest.approx(values.std(ddof=1))
    assert t_p_value(found) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert t_p_value(mean_interval([1.0, 1.0])) == 0.0
    assert t_p_value(mean_interval([0.0, 0.0])) == 1.0


def test_holm_is_its_definition():
    p = np.random.default_rng(1).uniform(0, 0.1, 9).tolist()
    ranks = sorted(range(9), key=p.__getitem__)
    slow = [max(min(1.0, (9 - j) * p[ranks[j]]) for j in range(ranks.index(i) + 1)) for i in range(9)]
    assert holm(p) == pytest.approx(slow)
    assert holm([]) == []
    assert holm([0.01, 0.02, 0.9]) == pytest.approx([0.03, 0.04, 0.9])


@pytest.mark.parametrize("level", [0.05, 0.05 / 30])
@pytest.mark.parametrize("n", [3, 5, 16, 100])
def test_the_detectable_effect_is_seen_with_the_power_of_the_noncentral_t(n, level):
    effect = detectable_effect(2.0, n, level)
    critical = stats.t.ppf(1 - level / 2, n - 1)
    assert stats.nct.sf(critical, n - 1, effect * math.sqrt(n) / 2.0) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("effect", "level"), [(0.75, 0.05), (2.0, 0.05), (0.3, 0.01), (50.0, 0.05)])
def test_the_seeds_needed_are_the_fewest_at_which_the_effect_is_detectable(effect, level):
    n = int(seeds_needed(effect, 1.0, level))
    assert detectable_effect(1.0, n, level) <= effect
    assert n == 2 or detectable_effect(1.0, n - 1, level) > effect


def test_what_no_number_of_seeds_shows_needs_infinitely_many():
    assert seeds_needed(0.0, 1.0) == seeds_needed(-1.0, 1.0) == seeds_needed(0.001, 1.0) == math.inf
    assert seeds_needed(0.1, 1.0) == 787  # (1.96 + 0.84)² / 0.01, and a little for the t distribution


@pytest.mark.parametrize("half", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("mean", [0.0, 0.4, 0.6, 1.5, 3.0])
def test_cannot_tell_always_needs_more_seeds_than_there_are(mean, half):
    found = verdict(interval(mean, half), tie=1.0)
    assert found.word != "cannot tell" or (found.seeds_needed or 0) > 5


def test_the_noise_floor_by_hand():
    floor = noise_floor([1.0, 2.0, 3.0], [1.0, 3.0])
    assert floor is not None
    assert (floor.arm, floor.rerun, floor.difference, floor.n) == pytest.approx((1.0, 2**0.5, 2**0.5, 3))
    assert noise_floor([1.0]) is None
