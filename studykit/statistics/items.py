"""Uncertainty from the held-out items, in addition to the seeds: two-way resampling, and the exact test on items.

A t interval over seeds is about the items that were scored. An interval over seeds and items is about other items of
the same kind too, as a headline claims; all seeds and both arms answer the same items, so items are resampled jointly.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, stdtrit

from studykit.statistics import Interval

_MANY = 1e9
"""Degrees of freedom at which Student's t is normal."""


@dataclass(frozen=True)
class ItemInterval(Interval):
    """An interval over seeds and items, with what each leaves open: the variance is seed_spread² / n + item_error².

    Attributes:
        seed_spread: standard deviation over seeds on these items, in the unit of the mean: more seeds take away what
            it leaves open.
        item_error: standard error from the items, in the same unit: it falls with their square root, and stays as it is
            however many seeds there are.
    """

    seed_spread: float = 0.0
    item_error: float = 0.0


def seeds_and_items(differences: np.ndarray, confidence: float = 0.95) -> ItemInterval | None:
    """Return the interval of a mean difference over seeds and items; None for a single seed or item.

    The variance is that of two-way resampling, for a plain mean in closed form, as of infinitely many draws: the
    seeds' part is that between their means, the items' part that between the items' means over seeds, since all seeds
    and both arms answer the same items. What is neither, the residual, is in both parts and counts once. Three
    seeds are too few for percentiles, so the interval is Student's t with Hillis's degrees of freedom, which holds its
    coverage where readers (here seeds) are few and cases (here items) are many.

    Args:
        differences: arm - baseline of every seed on every item, float [seeds, items].
        confidence: coverage, in (0, 1).

    Source:
        Owen (2007), The Pigeonhole Bootstrap; Hillis (2007), A Comparison of Denominator Degrees of Freedom Methods for
        Multiple Observer ROC Analysis.

    Example:
        >>> found = seeds_and_items(np.array([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]]))   # seeds agree, items not
        >>> found.mean, round(found.high - found.mean, 3)                                     # 1.96 √(1/3 / 4)
        (0.5, 0.566)
    """
    seeds, items = differences.shape
    if seeds < 2 or items < 2:
        return None
    rows, columns, mean = differences.mean(axis=1), differences.mean(axis=0), float(differences.mean())
    rest = differences - rows[:, None] - columns + mean
    residual = float((rest**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
    of_seeds, of_items = float(rows.var(ddof=1)) / seeds, float(columns.var(ddof=1)) / items
    shrinks, stays = max(of_seeds, residual), max(of_items - residual, 0.0)
    freedom = degrees_of_freedom(seeds, of_seeds, shrinks + stays)
    half = float(stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(shrinks + stays))
    spreads = float(np.sqrt(seeds * shrinks)), float(np.sqrt(stays))
    return ItemInterval(mean, mean - half, mean + half, seeds, None, *spreads)


def degrees_of_freedom(seeds: int, of_seeds: float, variance: float) -> float:
    """Return Hillis's degrees of freedom of a variance, of which the seeds' part alone is badly known.

    Args:
        seeds: number of them, at least 2.
        of_seeds: the seeds' part of the variance, at least 0.
        variance: of the mean, over seeds and items.

    >>> degrees_of_freedom(5, 1.0, 1.0), degrees_of_freedom(5, 1.0, 2.0)
    (4.0, 16.0)
    """
    return min((seeds - 1) * (variance / of_seeds) ** 2, _MANY) if of_seeds else _MANY


@dataclass(frozen=True)
class McNemar:
    """On how many items one arm alone is right.

    Attributes:
        arm, baseline: number of items that this one alone answers rightly.
        p_value: exact, two-sided: how often a coin for each of these items is as uneven.
    """

    arm: int
    baseline: int
    p_value: float


def mcnemar(arm: np.ndarray, baseline: np.ndarray) -> McNemar:
    """Return the exact McNemar test of two runs on the same items; it knows nothing of other seeds.

    Args:
        arm, baseline: 0 or 1 for each item, in the same order.

    Raises:
        ValueError: other values, or different numbers of items.

    Example:
        >>> mcnemar(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 0]))          # 3 of 3: 2 / 2³
        McNemar(arm=3, baseline=0, p_value=0.25)
    """
    if arm.shape != baseline.shape or not (np.isin(arm, (0, 1)).all() and np.isin(baseline, (0, 1)).all()):
        raise ValueError("mcnemar needs 0 or 1 for each item, of the same items in both arms")
    ahead, back = int(((arm == 1) & (baseline == 0)).sum()), int(((arm == 0) & (baseline == 1)).sum())
    return McNemar(ahead, back, min(1.0, 2 * float(bdtr(min(ahead, back), ahead + back, 0.5))))
