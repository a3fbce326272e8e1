"""What is drawn is what was measured: points, means, bands, axes and styles."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from studykit.figures import style
from studykit.figures.difference_against_budget import difference_against_budget
from studykit.figures.loss_curves import MOST_POINTS, loss_curves
from studykit.figures.methods_compared import methods_compared
from studykit.figures.score_against_budget import score_against_budget
from studykit.findings.data_size import data_size
from studykit.findings.methods import methods
from studykit.statistics import mean_interval, paired_difference

SCORES = {
    ("sft", 100): [0.10, 0.12, 0.14],
    ("kd", 100): [0.15, 0.16, 0.20],
    ("sft", 1_000): [0.30, 0.31],
    ("kd", 1_000): [0.33],
}


@pytest.fixture
def frame():
    """Return finished runs of two methods, and one that failed."""
    rows = [
        {"method": m, "budget_examples": b, "seed": s, "status": "done", "exact_match": x, "nll": 2 - x}
        for (m, b), scores in SCORES.items()
        for s, x in enumerate(scores)
    ]
    rows.append({"method": "kd", "budget_examples": 1_000, "seed": 5, "status": "failed", "exact_match": 0.99})
    return pd.DataFrame(rows).astype({"budget_examples": "Int64", "seed": "Int64"})


def traces(figure: Any) -> dict[str, Any]:
    """Return the traces by name."""
    return {trace.name: trace for trace in figure.data}


def drawn_curves(*arguments: Any, **keywords: Any) -> Any:
    """Return a figure of curves; plotly's own types say too little of it."""
    return loss_curves(*arguments, **keywords)


@pytest.mark.parametrize("method", ["sft", "kd"])
def test_every_finished_run_is_a_point_and_the_line_goes_through_the_means(frame, method):
    drawn = traces(score_against_budget(frame))
    points = drawn[f"{method}, runs"]
    expected = [(b, 100 * x) for (m, b), scores in SCORES.items() if m == method for x in scores]
    assert (list(points.x), list(points.y)) == tuple(map(pytest.approx, map(list, zip(*expected, strict=True))))
    line = drawn[method]
    assert list(line.x) == [100, 1_000]
    assert list(line.y) == pytest.approx([100 * np.mean(SCORES[method, b]) for b in (100, 1_000)])
    assert list(line.customdata) == [len(SCORES[method, b]) for b in (100, 1_000)]


def test_the_band_is_the_t_interval_and_one_seed_has_none(frame):
    drawn = traces(score_against_budget(frame))
    small, large = (mean_interval([100 * x for x in SCORES["sft", budget]]) for budget in (100, 1_000))
    band = drawn["sft, 95% interval"]
    assert list(band.x) == [100, 1_000, 1_000, 100]
    assert list(band.y) == pytest.approx([small.high, large.high, large.low, small.low])
    assert list(drawn["kd, 95% interval"].x) == [100, 100]


def test_budgets_are_on_a_log_axis_and_scores_in_points(frame):
    figure: Any = score_against_budget(frame)
    assert figure.layout.xaxis.type == "log"
    assert "points" in figure.layout.yaxis.title.text
    nll: Any = score_against_budget(frame, "nll")
    assert traces(nll)["kd, runs"].y[0] == pytest.approx(1.85)
    assert "nats" in nll.layout.yaxis.title.text


@pytest.mark.parametrize("metric", ["exact_match", "never_measured"])
def test_a_table_with_nothing_to_draw_gives_an_empty_figure(frame, metric):
    for table in (frame.iloc[:0], frame[frame["status"] == "failed"], frame.drop(columns="exact_match")):
        assert traces(score_against_budget(table, metric)) == {}
        assert traces(difference_against_budget(data_size(table, score=metric))) == {}


def test_the_difference_is_paired_by_seed_with_its_interval(frame):
    drawn = traces(difference_against_budget(data_size(frame)))
    mean, seeds = drawn["kd - sft, mean"], drawn["each seed"]
    small = paired_difference([15.0, 16.0, 20.0], [10.0, 12.0, 14.0])
    assert small.low is not None
    assert small.high is not None
    assert list(mean.x) == [100, 1_000]
    assert list(mean.y) == pytest.approx([small.mean, 3.0])
    assert list(mean.error_y.array) == pytest.approx([small.high - small.mean, 0])
    assert list(seeds.x) == [100, 100, 100, 1_000]
    assert list(seeds.y) == pytest.approx([5.0, 4.0, 6.0, 3.0])
    assert list(seeds.customdata) == [0, 1, 2, 0]


def test_a_method_keeps_its_style_in_every_figure(frame):
    score = traces(score_against_budget(frame))
    without_sft = traces(score_against_budget(frame[frame["method"] == "kd"]))
    curves = traces(drawn_curves({"kd": pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0]})}))
    colour, symbol, dash = style("kd")
    for drawn in (score, without_sft, curves):
        assert (drawn["kd"].line.color, drawn["kd"].line.dash) == (colour, dash)
    assert score["kd"].marker.symbol == symbol
    assert score["kd, runs"].marker.symbol == f"{symbol}-open"
    assert traces(difference_against_budget(data_size(frame)))["kd - sft, mean"].line.color == colour


def test_nothing_rests_on_colour_alone():
    assert len({style(name)[i] for name in ("sft", "kd") for i in range(3)}) == 6
    assert style("taid") == style("taid")
    assert style("taid") not in (style("sft"), style("kd"))


def test_curves_hold_every_value_of_a_short_run():
    curve = pd.DataFrame(
        {"step": [1, 2, 3], "loss": [3.0, None, 2.0], "num_tokens": [10, 20, 30], "time_s": [5.0, 6.5, 9.0]}
    )
    [trace] = drawn_curves({"sft": curve}).data
    assert (list(trace.x), list(trace.y)) == ([1, 3], [3.0, 2.0])
    by_tokens = drawn_curves({"sft": curve}, x="num_tokens")
    assert list(by_tokens.data[0].x) == [10, 30]
    assert by_tokens.layout.xaxis.title.text == "tokens through the student"
    assert list(drawn_curves({"sft": curve}, x="time_s").data[0].x) == [0.0, 4.0]  # from its own start


@pytest.mark.parametrize("runs", [1, 4])
def test_long_curves_are_thinned_and_the_axis_says_so(runs):
    curve = pd.DataFrame({"step": range(5_000), "loss": np.linspace(3, 1, 5_000)})
    figure = drawn_curves({f"run-{i}": curve for i in range(runs)})
    assert "thinned" in figure.layout.xaxis.title.text
    assert sum(len(trace.x) for trace in figure.data) <= MOST_POINTS
    assert all(len(trace.x) > MOST_POINTS / runs / 3 for trace in figure.data)
    assert (figure.data[0].x[0], figure.data[0].y[0]) == (0, 3.0)
    short = drawn_curves({"sft": curve.head(MOST_POINTS)})
    assert "thinned" not in short.layout.xaxis.title.text
    assert len(short.data[0].x) == MOST_POINTS


def test_a_curve_without_the_column_is_left_out():
    figure = drawn_curves({"a": pd.DataFrame(), "b": pd.DataFrame({"step": [1], "loss": [2.0]})})
    assert [trace.name for trace in figure.data] == ["b"]


def test_figures_are_plain_json_and_transparent(frame):
    figures: list[Any] = [score_against_budget(frame), difference_against_budget(data_size(frame))]
    for figure in figures:
        assert isinstance(go.Figure(**figure.to_dict()), go.Figure)
        assert "NaN" not in (figure.to_json() or "")
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_methods_come_best_first_with_paired_differences_and_cost(frame):
    done = frame[frame["budget_examples"] == 100].assign(train_s=[3.0, 4.0, 5.0, 10.0, 20.0, 30.0])
    figure: Any = methods_compared(methods(done), 100)
    scores, costs = ({t.y[0]: t for t in figure.data if t.xaxis == axis} for axis in ("x", "x2"))
    assert list(scores) == ["sft", "kd"]  # drawn from the bottom up
    interval = mean_interval([5.0, 4.0, 6.0])  # paired by seed, not the interval of the scores
    assert scores["kd"].x == (pytest.approx(interval.mean),)
    assert interval.high is not None
    assert scores["kd"].error_x.array == (pytest.approx(interval.high - interval.mean),)
    assert "helps" in scores["kd"].hovertemplate
    assert (scores["sft"].x, scores["sft"].error_x.array) == ((0.0,), (0.0,))
    assert costs["kd"].x == (20.0,)
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(-1.0, 1.0), (0, 0)]  # the tie, and zero


def test_cannot_tell_is_an_open_mark_and_nothing_is_drawn_without_a_baseline(frame):
    done = frame[(frame["budget_examples"] == 100) & (frame["seed"] == 0)]
    figure: Any = methods_compared(methods(done), 100)
    marks = {trace.y[0]: trace.marker.symbol for trace in figure.data}
    assert marks == {"sft": "circle", "kd": "diamond-open"}
    assert methods_compared(methods(done[done["method"] == "kd"]), 100).data == ()


def test_where_lower_is_better_the_lowest_comes_first(frame):
    done = frame[frame["budget_examples"] == 100]
    figure: Any = methods_compared(methods(done, score="nll"), 100)
    assert [t.y[0] for t in figure.data] == ["sft", "kd"]
    assert methods_compared(methods(done.iloc[:0]), 100).data == ()


def test_the_marks_of_one_budget_have_the_verdicts_of_the_finding_over_all_of_them(frame):
    more = {"sft": [0.10, 0.10, 0.10], "kd": [0.12, 0.14, 0.14]}  # t = 5: p = 0.038
    rows = [
        {"method": method, "budget_examples": 300, "seed": seed, "status": "done", "exact_match": score}
        for method, scores in more.items()
        for seed, score in enumerate(scores)
    ]
    both = pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)
    alone, finding = methods(both[both["budget_examples"] == 300]), methods(both)
    name = "kd - sft at 300 examples"
    assert [one.verdicts[name].word for one in (alone, finding)] == ["helps", "cannot tell"]
    figure: Any = methods_compared(finding, 300)
    kd = next(trace for trace in figure.data if trace.y[0] == "kd")
    assert str(finding.verdicts[name]) in kd.hovertemplate
    assert kd.marker.symbol == "diamond-open"
    assert str(finding.verdicts[name]) in set(finding.table["verdict"])
