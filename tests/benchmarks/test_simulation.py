"""The short form of the simulation: every claim holds within its error, and broken statistics are noticed."""

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks import simulation
from benchmarks.simulation import SEEDS, SPREADS, Check, main, simulate
from studykit.statistics import Interval, mean_interval
from studykit.statistics.verdicts import seeds_needed


def test_what_intervals_and_verdicts_claim_holds_in_two_hundred_studies(tmp_path):
    assert main(["--trials", "150", "--out", str(tmp_path / "simulation.json")]) == 0
    report = json.loads((tmp_path / "simulation.json").read_text())
    assert report["trials"] == 150
    counts = Counter(check["what"] for check in report["checks"])
    assert counts["helps or hurts where nothing differs"] == 4 * len(SEEDS)
    assert counts["planted crossover"] == 3 * len(SEEDS)
    assert counts["minimum detectable effect over seeds and items / simulated"] == 2 * len(SPREADS) * len(SEEDS)
    assert counts["seeds needed over seeds and items / simulated"] == 2
    assert any("some seeds never cross in 9" in check["note"] for check in report["checks"])


def test_intervals_that_are_too_narrow_are_noticed(monkeypatch):
    def narrow(values):
        found = mean_interval(values)
        assert found.low is not None
        return Interval(found.mean, (found.mean + found.low) / 2, (3 * found.mean - found.low) / 2, found.n)

    monkeypatch.setattr(simulation, "mean_interval", narrow)
    monkeypatch.setattr(simulation, "SEEDS", (5,))
    wrong = {check.what for check in simulate(60) if not check.holds}
    assert "helps or hurts where nothing differs" in wrong


def test_items_that_are_left_out_are_noticed(monkeypatch):
    monkeypatch.setattr(simulation, "seeds_needed", lambda effect, spread, item_error: seeds_needed(effect, spread))
    found = simulation._needed_over_items("both", 60, np.random.default_rng(0))
    assert not found.holds


@pytest.mark.parametrize(
    ("value", "error", "claimed", "holds"),
    [(0.95, 0.0, True, True), (0.92, 0.0, True, False), (0.92, 0.006, True, True), (0.5, 0.0, False, True)],
)
def test_a_value_may_leave_its_range_by_two_standard_errors(value, error, claimed, holds):
    assert Check("", "", value, 0.93, 0.97, error, claimed=claimed).holds is holds
