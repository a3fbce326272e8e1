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


def test_it_shows_the_lines_of_the_chosen_budget_of_the_finding_over_all_of_them(opened, results_root):
    app = opened(results_root, PAGE, budget="300")
    frame = results.load(results_root)
    finding = methods(frame, folder=results.studies(results_root)[0])
    assert app.info[0].value == plain(finding.sentence)
    table = finding.table[finding.table["budget"] == 300].drop(columns="budget")
    pd.testing.assert_frame_equal(app.dataframe[0].value.reset_index(drop=True), table.reset_index(drop=True))
    assert drawn(app) == {"sft", "kd"}


def test_the_figure_follows_metric_and_cost(opened, results_root):
    app = opened(results_root, PAGE, measure="nll", cost="tokens read by the student")
    layout = json.loads(app.get("plotly_chart")[0].proto.spec)["layout"]
    assert layout["xaxis"]["title"]["text"] == "difference to sft, NLL (nats per token)"
    assert layout["xaxis2"]["title"]["text"] == "tokens read by the student"


def test_another_baseline_is_compared_with(opened, copied):
    for seed in (0, 1, 2):
        write_run(copied / "sample", spec_of("gkd", 100, seed), score=0.2)
    app = opened(copied, PAGE, budget="100", against="kd")
    assert "from kd" in app.info[0].value
    assert drawn(app) == {"sft", "kd", "gkd"}


def test_runs_that_cannot_be_compared_say_why(opened, copied):
    other = spec_of("kd", 100, 0)  # the same run again: with another seed for its data, which is no option
    budget = other.stages[0].data.budget.model_copy(update={"seed": 5})
    data = other.stages[0].data.model_copy(update={"budget": budget})
    stages = (other.stages[0].model_copy(update={"data": data}),)
    write_run(copied / "sample", other.model_copy(update={"stages": stages}), score=0.2)
    app = opened(copied, PAGE, budget="100")
    assert "No comparison: the table holds kd at 100 examples twice" in app.warning[0].value.replace("\\", "")


def test_runs_with_other_options_are_other_methods(opened, copied):
    for seed in (0, 1, 2):
        spec = spec_of("kd", 100, seed)
        stages = (spec.stages[0].model_copy(update={"batch_size": 8}),)
        write_run(copied / "sample", spec.model_copy(update={"stages": stages}), score=0.2)
    app = opened(copied, PAGE, budget="100")
    assert drawn(app) == {"sft", "kd (batch_size=8)", "kd (batch_size=64)"}


@pytest.mark.parametrize("budget", ["100", "10000"])
def test_every_budget_opens(opened, results_root, budget):
    assert not opened(results_root, PAGE, budget=budget).exception
