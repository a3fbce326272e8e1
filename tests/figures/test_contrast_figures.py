"""Figures of contrasts draw what their findings hold."""

from typing import Any

import pandas as pd
import pytest

from studykit.figures.difference_along_option import difference_along_option
from studykit.figures.differences_by_setting import differences_by_setting
from studykit.figures.gain_against_gap import gain_against_gap
from studykit.figures.score_against_cost import score_against_cost
from studykit.findings import Finding


def line(setting, mean, *, budget=500, score=20.0, gap=None, cost=None, where=None, options=None):
    bounds = {} if mean is None else {"low": mean - 1, "high": mean + 1}
    interval = {"mean": mean, "n": 3, "p_value": None} | bounds
    content = {"budget_examples": budget, "setting": setting, "seeds": 3, "where": where or {}}
    content |= {"score": {"mean": score, "low": None, "high": None, "n": 3}, "options": options or {}}
    content |= {} if mean is None else {"score_difference": interval}
    return content | {"cost": cost or {}} | ({} if gap is None else {"gap": gap})


def finding_of(*lines):
    numbers = {"baseline": "sft", "gap_from": "sft", "score": "exact_match", "lines": list(lines)}
    return Finding(pd.DataFrame(), "", numbers)


def traces(figure: Any) -> Any:
    return figure.data


def markers(figure: Any) -> Any:
    """Return the traces of markers: the points of each budget, then one for each model."""
    return [trace for trace in figure.data if trace.mode == "markers"]


def test_gains_stand_over_the_gaps_of_their_teachers_one_line_per_budget():
    finding = finding_of(
        line("lexicon/strong", 3.0, gap=40.0),
        line("lexicon/weak", 1.0, gap=-5.0),
        line("lexicon/weak", 0.5, gap=-30.0, budget=4000),
    )
    small, large, *models = markers(gain_against_gap(finding))
    assert (list(small.x), list(small.y)) == ([-5.0, 40.0], [1.0, 3.0])
    assert list(small.error_y.array) == [1.0, 1.0]
    assert (small.name, large.name) == ("500 examples", "4,000 examples")
    symbols = {trace.name: trace.marker.symbol for trace in models}
    assert list(small.marker.symbol) == [symbols["weak"], symbols["strong"]]
    assert list(large.marker.symbol) == [symbols["weak"]]
    assert symbols["weak"] != symbols["strong"]


def test_points_may_be_labelled_by_a_factor_and_told_apart_by_their_setting():
    lines = [
        line(name, 1.0, gap=2.0, where={"student": "lexicon/small"}) for name in ("taid", "taid (schedule=linear)")
    ]
    figure: Any = gain_against_gap(finding_of(*lines), label="student")
    taid, linear, small = markers(figure)
    assert [taid.name, linear.name, small.name] == [
        "taid, 500 examples",
        "taid (schedule=linear), 500 examples",
        "small",
    ]
    assert [list(taid.marker.symbol), list(linear.marker.symbol)] == [[small.marker.symbol]] * 2


def test_settings_stand_best_on_top_one_panel_per_budget():
    finding = finding_of(line("a", 1.0), line("b", 3.0), line("a", -2.0, budget=4000))
    figure: Any = differences_by_setting(finding)
    assert [(trace.y[0], trace.x[0]) for trace in traces(figure)] == [("a", 1.0), ("b", 3.0), ("a", -2.0)]
    assert [note.text for note in figure.layout.annotations] == ["500 examples", "4,000 examples"]


def test_every_setting_has_a_label_and_as_much_room_in_a_panel_of_many():
    many = [line(f"setting {number}", float(number)) for number in range(20)]
    few = [line(f"setting {number}", float(number), budget=4000) for number in range(5)]
    layout: Any = differences_by_setting(finding_of(*many, *few)).layout
    first, second = ((axis.domain[1] - axis.domain[0]) * layout.height for axis in (layout.yaxis, layout.yaxis2))
    assert first / second == pytest.approx(20 / 5)
    assert first / 20 > 15  # pixels of a line of text
    assert layout.yaxis.dtick == layout.yaxis2.dtick == 1  # no label is left out


def test_nothing_to_compare_is_an_empty_figure():
    assert not traces(differences_by_setting(finding_of()))


def test_differences_stand_along_an_option_and_settings_without_it_are_left_out():
    lines = [line(f"gkd (beta={b})", b, options={"beta": b}) for b in (0.9, 0.1)]
    figure: Any = difference_along_option(finding_of(*lines, line("kd", 9.0)), "beta")
    [trace] = traces(figure)
    assert (trace.name, list(trace.x), list(trace.y)) == ("gkd, 500 examples", [0.1, 0.9], [0.1, 0.9])


def test_a_count_may_have_a_logarithmic_axis_with_its_values_as_ticks():
    lines = [line(f"kd, {n} calls", 1.0, options={"calls": float(n)}) for n in (50, 1500)]
    figure: Any = difference_along_option(finding_of(*lines), "calls", title="calls", log=True)
    axis = figure.layout.xaxis
    assert (axis.type, list(axis.tickvals), axis.title.text) == ("log", [50.0, 1500.0], "calls")


def test_the_front_joins_settings_that_no_cheaper_one_equals():
    finding = finding_of(
        line("sft", None, score=10.0, cost={"train_s": 5.0}),
        line("kd", 10.0, score=22.0, cost={"train_s": 10.0}),
        line("gkd", 8.0, score=21.0, cost={"train_s": 20.0}),
        line("kd", 0.0, score=50.0, cost={"train_s": 30.0}, budget=4000),
    )
    front, *points = traces(score_against_cost(finding, "train_s", 500))
    assert (list(front.x), list(front.y)) == ([5.0, 10.0, 20.0], [10.0, 22.0, 22.0])
    assert [(point.name, point.x[0], point.y[0]) for point in points] == [
        ("sft", 5.0, 10.0),
        ("kd", 10.0, 22.0),
        ("gkd", 20.0, 21.0),
    ]
    assert [point.name for point in traces(score_against_cost(finding))[1:]] == ["kd"]


def test_among_many_points_those_on_the_front_are_named_and_of_equal_cost_the_best_is_on_it():
    many = [line(f"m{n}", 1.0, score=float(n), cost={"student_tokens": 5.0}) for n in range(13)]
    front, *points = traces(score_against_cost(finding_of(*many), "student_tokens"))
    assert (list(front.x), list(front.y)) == ([5.0, 5.0], [12.0, 12.0])
    assert [point.name for point in points if "text" in point.mode] == ["m12"]


def test_panels_and_points_say_in_words_where_they_are():
    one = line("sft", 1.0, cost={"train_s": 1.0}, score=3.0)
    lines = [one | {"factors": f"student {name}"} for name in ("small", "large")]
    figure: Any = differences_by_setting(finding_of(*lines))
    assert [note.text for note in figure.layout.annotations] == [
        "500 examples, student small",
        "500 examples, student large",
    ]
    *fronts, small, large = traces(score_against_cost(finding_of(*lines), "train_s"))
    assert [front.name for front in fronts] == ["front", "front"]
    assert [point.name for point in (small, large)] == ["sft, student small", "sft, student large"]
    assert small.marker == large.marker  # of one method


@pytest.mark.parametrize("draw", [gain_against_gap, differences_by_setting])
def test_a_single_seed_has_no_bars(draw):
    one = line("a", 1.0, gap=1.0)
    one["score_difference"] |= {"low": None, "high": None, "n": 1}
    trace = markers(draw(finding_of(one)))[0]
    assert list((trace.error_y if trace.error_y.array is not None else trace.error_x).array) == [0]
