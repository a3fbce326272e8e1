"""How much more one setting gains than another, over the seeds and items that both have."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from studykit.findings._contrasts import Contrast, difference_of_gains
from studykit.findings._items import ItemEvidence
from studykit.findings._lines import Comparison, Line
from studykit.statistics import mean_interval, paired_difference
from studykit.statistics.items import seeds_and_items

SEEDS, ITEMS = [3, 4, 5], [f"item {number}" for number in range(200)]


def gain(generator, seeds=SEEDS, items=ITEMS):
    differences = pd.DataFrame(generator.normal(2.0, 30.0, (len(items), len(seeds))), items, seeds)
    by_seed = {seed: float(differences[seed].mean()) for seed in seeds}
    over = ItemEvidence(seeds_and_items(differences.to_numpy().T), {}, differences)
    score = Comparison(mean_interval(list(by_seed.values())), over.interval, by_seed, items=over)
    return Contrast({}, "", Line(500, "kd", len(seeds), score, None, {}), None, None, 1)


def test_the_interval_is_that_of_the_items_differences():
    generator = np.random.default_rng(0)
    first, second = gain(generator), gain(generator)
    apart = first.line.score.items.differences - second.line.score.items.differences
    expected = seeds_and_items(apart.to_numpy().T)
    over_seeds = paired_difference(first.line.score.by_seed, second.line.score.by_seed)
    found = difference_of_gains(first, second)
    assert found == replace(expected, p_value=over_seeds.p_value)
    assert found.mean == pytest.approx(over_seeds.mean)
    assert difference_of_gains(first, first).high == 0.0


def test_only_shared_seeds_and_items_count():
    generator = np.random.default_rng(1)
    first, second = gain(generator), gain(generator, [4, 5, 6], ITEMS[50:] + ["another"])
    parts = [one.line.score.items.differences.loc[ITEMS[50:], [4, 5]] for one in (first, second)]
    expected = seeds_and_items((parts[0] - parts[1]).to_numpy().T)
    found = difference_of_gains(first, second)
    assert (found.low, found.high, found.n) == (expected.low, expected.high, 2)
    assert difference_of_gains(first, gain(generator, [7, 8])) is None


def test_without_the_items_of_one_side_it_is_over_seeds():
    generator = np.random.default_rng(2)
    first, second = gain(generator), gain(generator)
    score = replace(second.line.score, items=None)
    without = replace(second, line=replace(second.line, score=score))
    assert difference_of_gains(first, without) == paired_difference(first.line.score.by_seed, score.by_seed)
