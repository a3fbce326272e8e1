"""Intervals, paired comparison and crossover over seeds. numpy and scipy only.

Seeds are few, so intervals are Student's t: at three seeds a bootstrap that claims 95% covers about 75%. Arms are
compared pairwise on the same seeds, which takes what both share (the drawn examples, the order) out of the difference.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

_EXACT_UP_TO = 12


@dataclass(frozen=True)
class Interval:
    """A mean and what the seeds leave open about it.

    Attributes:
        mean: of the values.
        low, high: bounds of the t interval; None where one value allows none.
        n: how many values.
        p_value: of a paired permutation test against 0, two-sided, where the interval is of a difference.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p_value: float | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0; False without bounds."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return mean ± t * s / √n, Student's t with n - 1 degrees of freedom.

    Args:
        values: one per seed, at least one, finite.
        confidence: coverage, in (0, 1).

    Returns:
        The interval; without bounds for a single value.

    Raises:
        ValueError: no value, or one that is not finite.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0])                            # t(2; 0.975) = 4.3027, s = 1
        Interval(mean=2.0, low=-0.484..., high=4.484..., n=3, p_value=None)
    """
    x = _finite(values)
    mean = float(x.mean())
    if len(x) == 1:
        return Interval(mean, None, None, 1)
    half = float(stdtrit(len(x) - 1, (1 + confidence) / 2) * x.std(ddof=1) / math.sqrt(len(x)))
    return Interval(mean, mean - half, mean + half, len(x))


def paired_difference(
    a: Mapping[int, float] | Sequence[float], b: Mapping[int, float] | Sequence[float], confidence: float = 0.95
) -> Interval:
    """Return the interval of a - b over shared seeds, with the p-value of a sign-flip permutation test.

    The test is exact up to 12 pairs; its smallest possible value is 2 / 2^n (0.25 at three seeds), so with few seeds
    read the interval first.

    Args:
        a, b: scores by seed; two sequences are taken to be in the same order of seeds.
        confidence: coverage, in (0, 1).

    Raises:
        ValueError: no seed in common, or sequences of different length.

    Example:
        >>> paired_difference({0: 3.0, 1: 5.0, 2: 4.0}, {0: 1.0, 1: 2.0, 2: 3.0})
        Interval(mean=2.0, low=-0.484..., high=4.484..., n=3, p_value=0.25)
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        seeds = sorted(set(a) & set(b))
        first, second = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    elif not isinstance(a, Mapping) and not isinstance(b, Mapping) and len(a) == len(b):
        first, second = list(a), list(b)
    else:
        raise ValueError(
            f"paired_difference needs two mappings by seed or two sequences of one length, "
            f"received {len(a)} and {len(b)} values"
        )
    difference = _finite(np.asarray(first, float) - np.asarray(second, float))
    interval = mean_interval(difference.tolist(), confidence)
    return Interval(interval.mean, interval.low, interval.high, interval.n, sign_flip_p(difference))


def sign_flip_p(differences: Sequence[float] | np.ndarray, draws: int = 20_000) -> float:
    """Return the two-sided p-value of the mean difference when each pair's sign could have gone either way.

    >>> sign_flip_p([1.0, 2.0, 3.0])                                   # 2 of 8 sign patterns are as extreme
    0.25
    """
    x = _finite(differences)
    if len(x) <= _EXACT_UP_TO:
        signs = np.array(list(itertools.product((1, -1), repeat=len(x))))
    else:
        signs = np.random.default_rng(0).choice((1, -1), size=(draws, len(x)))
        signs[0] = 1
    means = np.abs(signs @ x)
    return float((means >= abs(x.sum()) * (1 - 1e-12)).mean())


@dataclass(frozen=True)
class Crossover:
    """Where an advantage ends.

    Attributes:
        budget: at which the mean difference first falls to zero; None where it does not within the budgets.
        low, high: the smallest and largest budget at which the mean difference may be zero; None where that is already
            so at the first budget, or still so at the last budget.
        n: number of seeds.
        crossing: number of seeds whose differences fall to zero by themselves.
    """

    budget: float | None
    low: float | None
    high: float | None
    n: int
    crossing: int


def crossover(
    budgets: Sequence[float], differences: Sequence[Mapping[int, float]], confidence: float = 0.95
) -> Crossover | None:
    """Return where a difference falls to zero, interpolated in log budget; None if it cannot do so within the budgets.

    The interval is the range of budgets at which the t interval of the interpolated difference contains zero. Every
    seed counts, also one that never crosses: at the true crossover the mean difference is zero, so that with normal
    differences the interval contains it with the stated probability, whichever seeds cross.

    Args:
        budgets: increasing, positive.
        differences: for each budget, arm minus baseline by seed.
        confidence: coverage, in (0, 1).

    Returns:
        The crossover in the budgets' unit; None unless the mean difference may be above zero at some budget and zero
        at a later one.

    Source:
        Fieller (1954), Some Problems in Interval Estimation.

    Example:
        >>> crossover([100, 10_000], [{0: 1.0}, {0: -1.0}])               # half-way in log budget
        Crossover(budget=1000.0, low=None, high=None, n=1, crossing=1)
    """
    logs = np.log(np.asarray(budgets, float))
    found = _crossing(logs, np.array([np.mean(list(d.values())) for d in differences]))
    start = next((i for i, d in enumerate(differences) if _may_be_positive(list(d.values()), confidence)), len(logs))
    zeros = _zeros(logs, differences, start, confidence)
    seeds = sorted(set.intersection(*map(set, differences))) if differences else []
    if found is None and (not zeros or len(seeds) < 2):
        return None
    low = None if not zeros or min(zeros) <= logs[start] else math.exp(min(zeros))
    high = None if not zeros or max(zeros) >= logs[-1] else math.exp(max(zeros))
    crossing = sum(_crossing(logs, np.array([d[seed] for d in differences])) is not None for seed in seeds)
    return Crossover(None if found is None else round(math.exp(found), 6), low, high, len(seeds), crossing)


def _may_be_positive(values: Sequence[float], confidence: float) -> bool:
    interval = mean_interval(values, confidence)
    return interval.mean > 0 or (interval.high is not None and interval.high > 0)


def _zeros(logs: np.ndarray, differences: Sequence[Mapping[int, float]], start: int, confidence: float) -> list[float]:
    """Return the ends of the ranges of log budgets, from a first budget on, where the t interval contains zero."""
    ends: list[float] = []
    for i in range(start, len(logs) - 1):
        shared = sorted(set(differences[i]) & set(differences[i + 1]))
        first, second = (np.array([d[seed] for seed in shared]) for d in differences[i : i + 2])
        ends += [float(logs[i] + part * (logs[i + 1] - logs[i])) for part in _zero_within(first, second, confidence)]
    return ends


def _zero_within(first: np.ndarray, second: np.ndarray, confidence: float) -> list[float]:
    """Return the ends of the parts of a line between two budgets, 0 to 1, at which the t interval contains zero.

    Args:
        first, second: the differences at either budget, by seed.
    """
    if len(first) < 2:
        return [0.0, 1.0]
    rise = second - first
    (a, ad), (_, d) = np.cov(first, rise)
    t = stdtrit(len(first) - 1, (1 + confidence) / 2) ** 2 / len(first)
    line = np.array([rise.mean(), first.mean()])
    # the interval at x contains zero where (mean + x rise)² is at most t² / n times the variance there
    square = np.polysub(np.polymul(line, line), t * np.array([d, 2 * ad, a]))
    roots = np.roots(square)
    inside = [x.real for x in roots if abs(x.imag) < 1e-9 and 0 < x.real < 1]
    inside += [float(x) for x in np.roots(line) if 0 <= x <= 1]
    return sorted([*inside, *(end for end in (0.0, 1.0) if np.polyval(square, end) <= 0)])


def _crossing(logs: np.ndarray, values: np.ndarray) -> float | None:
    """Return where a curve first goes from above 0 to 0 or below, or None."""
    for i in range(len(values) - 1):
        if values[i] > 0 >= values[i + 1]:
            return float(logs[i] + (logs[i + 1] - logs[i]) * values[i] / (values[i] - values[i + 1]))
    return None


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    x = np.asarray(values, float)
    if x.size == 0 or not np.isfinite(x).all():
        raise ValueError(f"finite values are needed, at least one; received {x.tolist()}")
    return x
