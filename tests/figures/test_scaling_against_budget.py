"""Fits are drawn through the runs, and beyond the largest budget."""

from typing import Any

import pandas as pd
import pytest

from studykit.figures.scaling_against_budget import BEYOND, scaling_against_budget

BUDGETS = (500, 1_500, 5_000, 15_000, 40_000)


@pytest.fixture
def frame():
    rows = [
        {"method": m, "budget_examples": n, "seed": s, "status": "done", "exact_match": 0.5 - w * n**-0.5 + s / 1000}
        for m, w in (("sft", 9.0), ("kd", 7.0))
        for n in BUDGETS
        for s in (0, 1)
    ]
    return pd.DataFrame(rows).assign(student="small", teacher=None).astype({"budget_examples": "Int64"})


def test_each_arm_has_its_runs_a_power_law_and_the_best_rival(frame):
    figure: Any = scaling_against_budget(frame)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name) == ["kd", "kd: a + b n^-c", "kd: a + b log n", "sft", "sft: a + b n^-c", "sft: a + b log n"]
    curve = by_name["sft: a + b n^-c"]
    assert (curve.x[0], curve.x[-1]) == pytest.approx((500, BEYOND * 40_000))
    assert curve.y[-1] == pytest.approx(50.05 - 900 * 160_000**-0.5, rel=1e-3)
    assert sorted(by_name["sft"].y) == pytest.approx(sorted(100 * frame[frame["method"] == "sft"]["exact_match"]))


def test_one_budget_has_runs_and_no_fit(frame):
    figure: Any = scaling_against_budget(frame[frame["budget_examples"] == 500])
    assert [trace.name for trace in figure.data] == ["kd", "sft"]
    assert scaling_against_budget(frame.drop(columns="exact_match")).data == ()
