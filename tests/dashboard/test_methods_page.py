"""The page that holds methods side by side."""

import json

import pandas as pd
import pytest
from make_study import spec_of, write_run

from dashboard.states import plain
from studykit import results
from studykit.findings.methods import methods

PAGE = "views/15_methods.py"


def drawn(app):
    return {trace["y"][0] for trace in json.loads(app.get("plotly_chart")[0].proto.spec)["data"]}


def test_it_shows_the_finding_of_the_chosen_budget(opened, results_root):
    app = opened(results_root, PAGE, budget="300")
    frame = results.load(results_root)
    finding = methods(frame[(frame["budget_examples"] == 300) & (frame["status"] == "done")])
    assert app.info[0].value == plain(finding.sentence)
    pd.testing.assert_frame_equal(app.dataframe[0].value, finding.table.drop(columns="budget"), check_dtype=False)
    assert drawn(app) == {"sft", "kd"}


def test_the_figure_follows_metric_and_cost(opened, results_root):
    app = opened(results_root, PAGE, measure="nll", cost="tokens through the student")
    layout = json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]
    assert layout["xaxis"]["title"]["text"] == "NLL (nats per token)"
    assert layout["xaxis2"]["title"]["text"] == "student tokens"


def test_another_baseline_is_compared_with(opened, copied):
    for seed in (0, 1, 2):
        write_run(copied / "sample", spec_of("gkd", 100, seed), score=0.2)
    app = opened(copied, PAGE, budget="100", against="kd")
    assert "from kd" in app.info[0].value
    assert drawn(app) == {"sft", "kd", "gkd"}


def test_runs_that_cannot_be_compared_say_why(opened, copied):
    for seed in (0, 1, 2):
        write_run(copied / "sample", spec_of("kd", 100, seed), score=0.2)
    frame = results.load(copied)
    assert (frame["method"] == "kd").sum() >= 15
    app = opened(copied, PAGE, budget="100")
    assert not app.exception


@pytest.mark.parametrize("budget", ["100", "10000"])
def test_every_budget_opens(opened, results_root, budget):
    assert not opened(results_root, PAGE, budget=budget).exception
