"""Verdicts by hand, power against scipy's noncentral t, Holm against a slow definition."""

import math

import numpy as np
import pytest
from scipy import stats

from studykit.statistics import Interval, mean_interval
from studykit.statistics.items import ItemInterval, degrees_of_freedom, seeds_and_items
from studykit.statistics.verdicts import (
    LEVEL,
    corrections,
    detectable_effect,
    holm,
    noise_floor,
    seeds_needed,
    spreads_of,
    t_p_value,
    verdict,
    verdicts,
)


def interval(mean, half, n=5):
    return Interval(mean, mean - half, mean + half, n)


def over_items(mean, spread, item_error, n=5):
    """Return the interval over seeds and items that has these parts."""
    variance = spread**2 / n + item_error**2
    half = stats.t.ppf(0.975, degrees_of_freedom(n, spread**2 / n, variance)) * variance**0.5
    return ItemInterval(mean, mean - half, mean + half, n, seed_spread=spread, item_error=item_error)


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
    assert (plain["seeds_needed"], plain["needs_items"]) == (None, False)
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
    assert spreads_of(found) == (pytest.approx(values.std(ddof=1)), 0.0)
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


def test_one_contrast_is_claimed_at_the_level_that_holm_leaves_to_it():
    rng = np.random.default_rng(2)
    for _ in range(200):
        found = {str(i): interval(mean, 1.0, 6) for i, mean in enumerate(rng.normal(0, 2, 7))}
        for name, own in corrections(found).items():
            assert (own["p_value"] <= LEVEL) is (t_p_value(found[name]) * own["comparisons"] <= LEVEL)


def test_what_is_detectable_takes_the_level_of_all_contrasts_that_are_left():
    weak = {str(i): interval(0.5, 2.0) for i in range(3)}
    found = verdicts(weak | {"strong": interval(9.0, 0.5)}, tie=0.1)
    spread = spreads_of(weak["0"])[0]
    assert [found[name].detectable for name in weak] == [pytest.approx(detectable_effect(spread, 5, 0.05 / 3))] * 3
    assert found["strong"].detectable == pytest.approx(detectable_effect(spread / 4, 5, 0.05 / 4))


@pytest.mark.parametrize(("spread", "item_error"), [(1.0, 0.5), (0.2, 1.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("n", [3, 8])
def test_the_detectable_effect_over_items_is_that_of_both_variances(spread, item_error, n):
    of_seeds, error = spread**2 / n, (spread**2 / n + item_error**2) ** 0.5
    freedom = degrees_of_freedom(n, of_seeds, error**2)
    effect = detectable_effect(spread, n, item_error=item_error)
    assert stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, effect / error) == pytest.approx(0.8, abs=1e-4)
    few, many = (detectable_effect(spread, count, 0.01, item_error=item_error) for count in (n, 1_000))
    assert many >= (2.5758 + 0.8416) * item_error - 1e-3  # what the items leave open at any number of seeds
    assert few > many


def test_the_seeds_needed_shrink_the_part_of_the_seeds_alone():
    n = int(seeds_needed(1.0, 1.0, item_error=0.25))
    assert n > int(seeds_needed(1.0, (1.0 + 5 * 0.25**2) ** 0.5))  # as if all of the variance at 5 seeds were theirs
    assert detectable_effect(1.0, n, item_error=0.25) <= 1.0 < detectable_effect(1.0, n - 1, item_error=0.25)


def test_where_the_items_leave_it_open_more_items_are_needed():
    few, many = (verdict(over_items(1.2, 1.0, 25 / items**0.5), tie=0.5) for items in (1_000, 10_000))
    assert str(few) == "cannot tell (needs more test items)"
    assert (few.word, few.seeds_needed, few.needs_items) == ("cannot tell", math.inf, True)
    assert few.plain()["seeds_needed"] is None
    assert str(many) == "cannot tell (needs about 10 seeds)"
    nothing = verdict(over_items(0.0, 1.0, 0.1), tie=0.0)  # neither seeds nor items would settle that it is zero
    assert str(nothing) == "cannot tell (needs more than 1,000 seeds)"


def test_the_parts_of_an_interval_over_items_are_those_that_were_drawn():
    rng = np.random.default_rng(3)
    drawn = rng.normal(0, 2, (400, 1)) + rng.normal(0, 10, (1, 900)) + rng.normal(0, 3, (400, 900))
    found = seeds_and_items(drawn)
    assert found is not None
    assert spreads_of(found) == pytest.approx((2.0, 10 / 30), rel=0.1)
    variance = found.seed_spread**2 / 400 + found.item_error**2
    t = stats.t.ppf(0.975, degrees_of_freedom(400, found.seed_spread**2 / 400, variance))
    assert found.high == pytest.approx(found.mean + t * variance**0.5)


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
