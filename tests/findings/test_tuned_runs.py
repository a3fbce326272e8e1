"""Runs that were tuned alike are one setting, whatever values they have; others are another one."""

import pandas as pd
import pytest

from studykit.findings import comparable, labels
from studykit.findings.data_size import data_size
from studykit.findings.methods import methods

RATES = {("sft", 500): 0.002, ("kd", 500): 0.004, ("sft", 5000): 0.001, ("kd", 5000): 0.008}


def run(method, budget, seed, tuning: str | None = "0a1b", **changes):
    """Make the row of a run whose learning rate and steps a tuning chose."""
    rate, steps = RATES[method, budget], int(RATES[method, budget] * 1e5)
    chosen = {"tuning": tuning, "trials": 12, "tuned_at_edge": "no", "tuning_s": 60.0}
    chosen |= {"tuned.learning_rate": rate, "tuned.steps": steps}
    shared = {"status": "done", "student": "small", "learning_rate": rate, "steps": steps, "seed": seed}
    shared |= {"run_id": f"{method}{budget}{seed}{tuning}", "teacher": None if method == "sft" else "large"}
    scores = {"exact_match": 0.2 + rate + seed / 1000, "nll": 1.0 - rate}
    return shared | {"method": method, "budget_examples": budget} | scores | (chosen if tuning else {}) | changes


@pytest.fixture
def frame():
    return pd.DataFrame([run(method, budget, seed) for method, budget in RATES for seed in (0, 1, 2)])


def test_values_that_tuning_chose_make_no_other_setting(frame):
    assert set(labels(frame)) == {"sft", "kd"}
    notebook = frame[(frame["budget_examples"] == 500) & (frame["seed"] == 0)]
    assert len(comparable(frame, notebook)) == len(frame)
    assert [line["budget_examples"] for line in data_size(frame).numbers["budgets"]] == [500, 5000]
    assert {line["seeds"] for line in methods(frame).numbers["lines"]} == {3}


def test_another_value_that_was_given_does(frame):
    other = pd.concat([frame, pd.DataFrame([run("kd", 500, 3, batch_size=8)])], ignore_index=True)
    assert labels(other).nunique() == 3
    notebook = frame[(frame["budget_examples"] == 500) & (frame["seed"] == 0)]
    assert len(comparable(other, notebook)) == len(frame)


def test_runs_of_another_tuning_or_without_one_are_left_out(frame):
    by_hand, other = run("kd", 500, 7, tuning=None), run("kd", 500, 8, tuning="9f9f")
    both = run("kd", 500, 9, tuning="9f9f, 0a1b, by hand")
    every = pd.concat([frame, pd.DataFrame([by_hand, other, both])], ignore_index=True)
    tuned = comparable(every, frame[frame["seed"] == 0])
    assert sorted(set(tuned["seed"])) == [0, 1, 2, 9]
    assert set(tuned["tuning"]) == {"0a1b"}
    notebook = pd.DataFrame([{name: value for name, value in by_hand.items() if name != "tuning"}])
    alone = comparable(every, notebook)
    assert sorted(alone["seed"]) == [7, 9]
    assert not [name for name in alone if "tun" in str(name)]
