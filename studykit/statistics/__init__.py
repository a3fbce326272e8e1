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


def crossover(
    budgets: Sequence[float], differences: Sequence[Mapping[int, float]], confidence: float = 0.95
) -> Interval | None:
    """Return the budget at which a difference first falls to zero, interpolated in log budget; None if it never does.

    Each seed's own curve of differences is searched for its first crossing from above; the interval is that of the
    logarithms over seeds, so its bounds are budgets too. Seeds whose curve never crosses leave no value.

    Args:
        budgets: increasing, positive.
        differences: for each budget, arm minus baseline by seed.
        confidence: coverage, in (0, 1).

    Returns:
        The interval in the budgets' unit, `n` the seeds that cross; None unless the mean curve crosses too.

    Example:
        >>> crossover([100, 10_000], [{0: 1.0}, {0: -1.0}])               # half-way in log budget
        Interval(mean=1000.0, low=None, high=None, n=1, p_value=None)
    """
    logs = np.log(np.asarray(budgets, float))
    if _crossing(logs, np.array([np.mean(list(d.values())) for d in differences])) is None:
        return None
    seeds = sorted(set.intersection(*(set(d) for d in differences)))
    found = [_crossing(logs, np.array([d[seed] for d in differences])) for seed in seeds]
    values = [value for value in found if value is not None]
    if not values:
        return None
    interval = mean_interval(values, confidence)
    low, high = (None if bound is None else math.exp(bound) for bound in (interval.low, interval.high))
    return Interval(round(math.exp(interval.mean), 6), low, high, interval.n)


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
