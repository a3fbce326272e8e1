"""What is drawn of signals is what was measured: differences to dense with their bars, sizes, the baseline's level."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from studykit.figures.difference_against_bytes import difference_against_bytes

SIGNALS = {  # method and option: points by seed, bytes; t(1; 0.975) / √2 = 8.9846, times s = 1 / √2: 6.3531
    ("kd", None): ([20.0, 22.0], None),
    ("kd", ("teacher_top_k", 4)): ([21.0, 24.0], 20.0),
    ("kd", ("teacher_top_k", 2)): ([15.0, 18.0], 12.0),
    ("kd", ("teacher_samples", 8)): ([19.0, 24.0], 15.0),
    ("sft", None): ([10.0, 11.0], None),
}


@pytest.fixture
def frame():
    rows = [
        {"method": m, "seed": s, "exact_match": x / 100, "nll": x / 10, "bytes_per_position": size}
        | (dict([o]) if o else {})
        for (m, o), (scores, size) in SIGNALS.items()
        for s, x in enumerate(scores)
    ]
    frame = pd.DataFrame(rows).assign(status="done", student="small", budget_examples=100)
    return frame.astype({"budget_examples": "Int64", "seed": "Int64"})


def panel(figure: Any, axis: str) -> dict[str, Any]:
    """Return the traces of one panel by name."""
    return {trace.name: trace for trace in figure.data if trace.yaxis == axis}


@pytest.mark.parametrize(("axis", "scale"), [("y", 1.0), ("y2", 0.1)])
def test_every_signal_is_a_point_at_its_size_with_its_interval(frame, axis, scale):
    drawn = panel(difference_against_bytes(frame), axis)
    assert list(drawn) == ["the k likeliest tokens", "samples", "sft"]
    tokens = drawn["the k likeliest tokens"]
    assert (list(tokens.x), list(tokens.text)) == ([12.0, 20.0], ["2", "4"])
    assert list(tokens.y) == pytest.approx([-4.5 * scale, 1.5 * scale])
    assert list(tokens.error_y.array) == pytest.approx([6.3531 * scale] * 2, rel=1e-4)
    assert list(drawn["samples"].y) == pytest.approx([0.5 * scale])


def test_the_baseline_is_a_level_over_all_sizes_and_zero_is_dense(frame):
    figure: Any = difference_against_bytes(frame)
    level = panel(figure, "y")["sft"]
    assert (list(level.x), list(level.y)) == ([12.0, 20.0], pytest.approx([-10.5, -10.5]))
    assert [shape.y0 for shape in figure.layout.shapes] == [0, 0]


def test_sizes_are_ticks_of_a_log_axis_and_forms_differ_in_more_than_colour(frame):
    figure: Any = difference_against_bytes(frame)
    assert figure.layout.xaxis.type == figure.layout.xaxis2.type == "log"
    assert list(figure.layout.xaxis2.tickvals) == [12.0, 15.0, 20.0]
    drawn = panel(figure, "y")
    assert drawn["samples"].marker.symbol != drawn["the k likeliest tokens"].marker.symbol
    assert len({trace.name for trace in figure.data if trace.showlegend}) == sum(
        bool(t.showlegend) for t in figure.data
    )


def test_one_seed_has_no_bar_and_without_sizes_there_is_nothing(frame):
    figure: Any = difference_against_bytes(frame[frame["seed"] == 0])
    assert list(panel(figure, "y")["samples"].error_y.array) == [0]
    assert difference_against_bytes(frame.drop(columns="bytes_per_position")).data == ()
    assert difference_against_bytes(frame.iloc[:0]).data == ()


def test_it_is_plain_json_and_transparent(frame):
    figure: Any = difference_against_bytes(frame)
    assert isinstance(go.Figure(**figure.to_dict()), go.Figure)
    assert "NaN" not in (figure.to_json() or "")
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
