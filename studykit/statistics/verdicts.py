"""Verdicts on paired differences, with meanings that are fixed before a run. numpy and scipy only.

    verdicts({"kd at 500": difference, ...}, tie=1.0, unit="points")["kd at 500"]      # a notebook's planned contrasts

- *tie*: the whole 95% interval lies within ± the margin `tie`; a tie takes precedence over significance.
- *helps*, *hurts*: the interval is clear of zero, and the t test's p-value is at most 5% after Holm's correction over
  all planned contrasts: the family-wise error is at most 5%.
- *cannot tell*: neither. The number of seeds that would be needed is that at which the test has 80% power for the
  observed difference, or at which the interval of this spread would lie within the margin, whichever is fewer. Where
  the interval is over items too, their part of the variance is the same at every number of seeds; where it alone is too
  large, more test items are needed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit

from studykit.statistics import Interval
from studykit.statistics.items import ItemInterval, degrees_of_freedom

Word = Literal["helps", "hurts", "tie", "cannot tell"]
WORDS: tuple[Word, ...] = get_args(Word)

LEVEL = 0.05
"""Probability of *helps* or *hurts* where nothing differs, over all planned contrasts together."""

POWER = 0.8
"""Probability with which a difference as large as the minimum detectable effect is seen."""

MOST_SEEDS = 1_000
"""Above this, a number of seeds is impractical and is not named."""


@dataclass(frozen=True)
class Verdict:
    """A word about a paired difference, and what it rests on; `str` is the phrase that is shown everywhere.

    Attributes:
        word: `helps`, `hurts`, `tie` or `cannot tell`.
        difference: the 95% interval of arm - baseline, in the metric's unit.
        tie: largest difference that does not matter, in the same unit.
        p_value: of the t test, after Holm's correction; None without an interval.
        detectable: the minimum detectable effect with these seeds and items, at the level that Holm's correction leaves
            to this contrast, in the same unit; None without an interval.
        seeds_needed: of *cannot tell*: the number of seeds, these included, that would settle it; None without an
            interval, infinite above `MOST_SEEDS`.
        needs_items: of *cannot tell*: whether no number of seeds would settle it on these test items, and some number
            would on enough of them.
        unit: of the difference.
        digits: decimals of the unit.
    """

    word: Word
    difference: Interval
    tie: float
    p_value: float | None = None
    detectable: float | None = None
    seeds_needed: float | None = None
    needs_items: bool = False
    unit: str = ""
    digits: int = 1

    def __str__(self) -> str:
        """Return the phrase, such as "tie (no difference larger than 1.0 points)" or "cannot tell (...)"."""
        if self.word == "tie":
            return f"tie (no difference larger than {f'{self.tie:.{self.digits}f} {self.unit}'.strip()})"
        if self.word == "cannot tell":
            return f"cannot tell ({self._need()})"
        return self.word

    def plain(self) -> dict[str, Any]:
        """Return word, phrase and numbers as plain JSON data."""
        needed = None if self.seeds_needed is None or math.isinf(self.seeds_needed) else int(self.seeds_needed)
        numbers = {"tie": self.tie, "p_value": self.p_value, "detectable": self.detectable, "seeds_needed": needed}
        return {"word": self.word, "phrase": str(self), **numbers, "needs_items": self.needs_items}

    def _need(self) -> str:
        if self.seeds_needed is None:
            return "one seed gives no interval"
        if self.needs_items:
            return "needs more test items"
        if math.isinf(self.seeds_needed):
            return f"needs more than {MOST_SEEDS:,} seeds"
        return f"needs about {_round(int(self.seeds_needed)):,} seeds"


def verdict(
    difference: Interval,
    *,
    tie: float,
    higher_is_better: bool = True,
    unit: str = "",
    digits: int = 1,
    comparisons: int = 1,
    p_value: float | None = None,
) -> Verdict:
    """Return the verdict on one difference; `verdicts` corrects for several.

    Args:
        difference: the 95% t interval of arm - baseline, over seeds, or over seeds and items.
        tie: largest difference that does not matter, at least 0.
        higher_is_better: the direction of the metric.
        unit, digits: how the difference is shown.
        comparisons: number of contrasts that the level is shared by.
        p_value: already corrected; None: the t test's, times the number of comparisons.

    Example:
        >>> str(verdict(Interval(3.6, 2.5, 4.6, 5), tie=1.0))
        'helps'
        >>> str(verdict(Interval(0.2, -0.5, 0.9, 5), tie=1.0, unit="points"))
        'tie (no difference larger than 1.0 points)'
        >>> str(verdict(Interval(1.0, -0.8, 2.8, 5), tie=1.0))                        # s = 1.45
        'cannot tell (needs about 19 seeds)'
        >>> str(verdict(ItemInterval(1.6, -0.2, 3.4, 5, seed_spread=1.0, item_error=0.8), tie=1.0))  # 2.8 * 0.8 > 1.6
        'cannot tell (needs more test items)'
    """
    low, high = difference.low, difference.high
    if low is None or high is None:
        return Verdict("cannot tell", difference, tie, unit=unit, digits=digits)
    if p_value is None:
        p_value = min(1.0, t_p_value(difference) * comparisons)
    level, needed, needs_items = LEVEL / comparisons, None, False
    word = _word(difference, tie, p_value, higher_is_better)
    if word == "cannot tell":
        needed, needs_items = _needed(difference, tie, level)
    spread, item_error = spreads_of(difference)
    detectable = detectable_effect(spread, difference.n, level, item_error=item_error)
    return Verdict(word, difference, tie, p_value, detectable, needed, needs_items, unit, digits)


def verdicts(
    differences: Mapping[str, Interval], *, tie: float, higher_is_better: bool = True, unit: str = "", digits: int = 1
) -> dict[str, Verdict]:
    """Return the verdicts on the planned contrasts of a notebook, by name: Holm's correction is over all of them.

    A contrast without an interval, such as one with a single seed, counts as a planned one.

    Args:
        differences: by name, the 95% t interval of arm - baseline.
        tie: largest difference that does not matter.
        higher_is_better, unit, digits: of the metric.
    """
    shared = {"tie": tie, "higher_is_better": higher_is_better, "unit": unit, "digits": digits}
    corrected = corrections(differences)
    return {name: verdict(one, **shared, **corrected[name]) for name, one in differences.items()}


def corrections(differences: Mapping[str, Interval | None]) -> dict[str, dict[str, Any]]:
    """Return the corrected `p_value` of each planned contrast, and `comparisons`, which its level is divided by.

    With the others as they are, a contrast is claimed where its own p-value is at most the level divided by the number
    of contrasts that are not claimed without it, itself included: this is Holm's rule seen from one contrast.

    A contrast that cannot be computed yet, None, counts as one with a p-value of 1.
    """
    p_values = [1.0 if one is None or one.low is None else t_p_value(one) for one in differences.values()]
    return {
        name: {"p_value": p, "comparisons": _left_beside(p_values[:i] + p_values[i + 1 :])}
        for i, (name, p) in enumerate(zip(differences, holm(p_values), strict=True))
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's correction: each is at most 5% with probability 5% for all true nulls together.

    Source: Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(order) - np.arange(len(order))
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, float)[order] * factors), 1.0)
    return adjusted.tolist()


def t_p_value(difference: Interval) -> float:
    """Return the two-sided p-value of Student's t test against 0, from a 95% t interval with bounds.

    An interval over seeds and items has more than n - 1 degrees of freedom; its p-value is exact at 5% and too large
    below, so that a correction for several contrasts never claims too much.

    >>> round(t_p_value(Interval(2.0, 2.0 - 4.302653, 2.0 + 4.302653, 3)), 6)           # t(2) = 2
    0.183503
    """
    error = _error(difference)
    if error == 0:
        return float(difference.mean == 0)
    return float(2 * stdtr(difference.n - 1, -abs(difference.mean) / error))


def spreads_of(difference: Interval) -> tuple[float, float]:
    """Return the standard deviation over seeds and the standard error from the items of a 95% interval with bounds.

    The latter is 0 where the interval is over seeds alone. Both are in the unit of the difference.
    """
    if isinstance(difference, ItemInterval):
        return difference.seed_spread, difference.item_error
    return _error(difference) * math.sqrt(difference.n), 0.0


def detectable_effect(
    spread: float, n: int, level: float = LEVEL, power: float = POWER, item_error: float = 0.0
) -> float:
    """Return the minimum detectable effect δ of a paired t test: with δ / e noncentral, it is seen with this power.

    The standard error e is √(s² / n + i²), with Hillis's degrees of freedom. Below the level of 5% the bound is that of
    `t_p_value`, which is larger than this t distribution's.

    Args:
        spread: standard deviation s of the differences over seeds.
        n: number of seeds, at least 2.
        level: two-sided, at most 5%.
        power: in (level, 1).
        item_error: standard error i from the items, in the unit of the spread.

    Returns:
        The effect in the unit of the spread.

    Example:
        >>> round(detectable_effect(1.0, 16), 2)                                        # 0.75 in tables of power
        0.75
        >>> round(detectable_effect(0.0, 16, item_error=1.0), 2)                        # 1.96 + 0.84
        2.8
    """
    of_seeds = spread**2 / n
    variance = of_seeds + item_error**2
    return math.sqrt(variance) * _noncentrality(n, degrees_of_freedom(n, of_seeds, variance), level, power)


def seeds_needed(
    effect: float, spread: float, level: float = LEVEL, power: float = POWER, item_error: float = 0.0
) -> float:
    """Return the smallest number of seeds at which an effect can be detected; infinite above `MOST_SEEDS`.

    With a spread from few seeds, this is a rough number: at 3 seeds the spread itself is known within a factor of 2 to
    6.

    Args:
        effect: in the unit of the spread.
        spread, level, power, item_error: as in `detectable_effect`.

    >>> seeds_needed(0.75, 1.0)
    16
    >>> seeds_needed(0.75, 1.0, item_error=0.2), seeds_needed(0.75, 1.0, item_error=0.3)        # 2.8 * 0.3 > 0.75
    (33, inf)
    """

    def is_seen(n: int) -> bool:
        return detectable_effect(spread, n, level, power, item_error) <= effect

    if effect <= 0 or not is_seen(MOST_SEEDS):
        return math.inf
    low, high = 1, 2
    while not is_seen(high):
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class NoiseFloor:
    """What another seed alone changes.

    Attributes:
        arm: standard deviation of the same arm over seeds.
        rerun: standard deviation of the difference between two of its seeds: √2 times that of the arm.
        difference: standard deviation of the paired differences over seeds; None where there are none.
        n: number of seeds.
    """

    arm: float
    rerun: float
    difference: float | None
    n: int


def noise_floor(baseline: Sequence[float], differences: Sequence[float] = ()) -> NoiseFloor | None:
    """Return the noise floor of the same arm with other seeds; None for a single seed.

    >>> noise_floor([1.0, 2.0, 3.0], [0.5, 0.5])
    NoiseFloor(arm=1.0, rerun=1.414..., difference=0.0, n=3)
    """
    if len(baseline) < 2:
        return None
    arm = float(np.std(baseline, ddof=1))
    paired = float(np.std(differences, ddof=1)) if len(differences) > 1 else None
    return NoiseFloor(arm, arm * math.sqrt(2), paired, len(baseline))


def _word(difference: Interval, tie: float, p_value: float, higher_is_better: bool) -> Word:
    low, high = difference.low or 0.0, difference.high or 0.0
    if -tie <= low and high <= tie:
        return "tie"
    if difference.excludes_zero and p_value <= LEVEL:
        return "helps" if (difference.mean > 0) is higher_is_better else "hurts"
    return "cannot tell"


def _needed(difference: Interval, tie: float, level: float) -> tuple[float, bool]:
    """Return the number of seeds that would settle a difference, and whether none would but for the items' part."""
    effect, (spread, item_error) = abs(difference.mean), spreads_of(difference)

    def fewest(item_error: float) -> float:
        observed = seeds_needed(effect, spread, level, item_error=item_error)
        return min(observed, seeds_needed(tie - effect, spread, item_error=item_error))

    needed = fewest(item_error)
    return needed, math.isinf(needed) and not math.isinf(fewest(0.0))


def _left_beside(others: Sequence[float]) -> int:
    """Return how many contrasts Holm's correction leaves beside others with these p-values, this one included."""
    count = len(others) + 1
    unclaimed = (rank for rank, p in enumerate(sorted(others)) if p * (count - rank) > LEVEL)
    return count - next(unclaimed, len(others))


def _error(difference: Interval) -> float:
    """Return the standard error that a 95% interval has as one of Student's t over its seeds."""
    assert difference.low is not None
    assert difference.high is not None
    return float((difference.high - difference.low) / 2 / stdtrit(difference.n - 1, 1 - LEVEL / 2))


@lru_cache(maxsize=10_000)
def _noncentrality(n: int, freedom: float, level: float, power: float) -> float:
    """Return the noncentrality at which the test of a verdict has this power; the wrong side's part is left out."""
    at_95, corrected = (float(stdtrit(n - 1, 1 - one / 2)) for one in (LEVEL, level))
    critical = float(stdtrit(freedom, 1 - LEVEL / 2)) * corrected / at_95
    return float(nctdtrinc(freedom, 1 - power, critical))


def _round(count: int) -> int:
    """Return a count with two significant digits."""
    return round(count, 2 - len(str(count))) if count >= 100 else count
