"""How much more one setting gains than another, over the seeds and items that both have."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studykit.findings._contrasts import Contrast, difference_of_gains
from studykit.findings._items import ItemEvidence
from studykit.findings._lines import Comparison, Line
from studykit.statistics import mean_interval, paired_difference
from studykit.statistics.items import seeds_and_items

SEEDS, ITEMS = [3, 4, 5], [f"item {number}" for number in range(200)]


def gain(generator, seeds=SEEDS, items=ITEMS) -> tuple[Contrast, pd.DataFrame, dict[int, float]]:
    """Return a contrast with its differences by item and seed, and their means by seed."""
    differences = pd.DataFrame(generator.normal(2.0, 30.0, (len(items), len(seeds))), items, seeds)
    by_seed = {seed: float(differences[seed].mean()) for seed in seeds}
    over = ItemEvidence(seeds_and_items(differences.to_numpy().T), {}, differences)
    score = Comparison(mean_interval(list(by_seed.values())), over.interval, by_seed, items=over)
    return Contrast({}, "", Line(500, "kd", len(seeds), score, None, {}), None, None, 1), differences, by_seed


def interval(differences: pd.DataFrame) -> Any:
    return seeds_and_items(differences.to_numpy().T)


def test_the_interval_is_that_of_the_items_differences():
    generator = np.random.default_rng(0)
    (first, a, by_seed), (second, b, others) = gain(generator), gain(generator)
    over_seeds = paired_difference(by_seed, others)
    found: Any = difference_of_gains(first, second)
    assert found == replace(interval(a - b), p_value=over_seeds.p_value)
    assert found.mean == pytest.approx(over_seeds.mean)
    none: Any = difference_of_gains(first, first)
    assert (none.low, none.high) == (0.0, 0.0)


def test_only_shared_seeds_and_items_count():
    generator = np.random.default_rng(1)
    (first, a, _), (second, b, _) = gain(generator), gain(generator, [4, 5, 6], [*ITEMS[50:], "another"])
    found: Any = difference_of_gains(first, second)
    expected = interval(a.loc[ITEMS[50:], [4, 5]] - b.loc[ITEMS[50:], [4, 5]])
    assert (found.low, found.high, found.n) == (expected.low, expected.high, 2)
    assert difference_of_gains(first, gain(generator, [7, 8])[0]) is None


def test_without_the_items_of_one_side_it_is_over_seeds():
    generator = np.random.default_rng(2)
    (first, _, by_seed), (second, _, others) = gain(generator), gain(generator)
    assert second.line.score
    line = replace(second.line, score=replace(second.line.score, items=None))
    assert difference_of_gains(first, replace(second, line=line)) == paired_difference(by_seed, others)
