"""What students gain over the baseline against the gap to their teacher, one line per budget and setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import distinct_styles, error_bars, finish
from studykit.findings import Finding
from studykit.scorers import metric


def gain_against_gap(finding: Finding, label: str | None = None) -> go.Figure:
    """Return each setting's paired difference to the baseline against the gap, with its 95% t interval.

    The gap is the teacher's score minus that of students without one. Zero is the baseline. Colours tell budgets apart,
    markers the models.

    Args:
        finding: with a teacher's score in its lines, such as `teacher_strength`.
        label: the factor that markers tell apart, and colours do not; None for the setting.
    """
    figure, shown = go.Figure(), metric(finding.numbers["score"])
    lines = [line for line in finding.numbers["lines"] if "gap" in line and "score_difference" in line]
    groups = [f"{_setting(line, label)}{line['budget_examples']:,} examples" for line in lines]
    names = [str(line["setting"] if label is None else line["where"][label]).rpartition("/")[2] for line in lines]
    symbols = {name: symbol for name, (_, symbol, _) in distinct_styles(names).items()}
    points = sorted(zip(groups, names, lines, strict=True), key=lambda point: point[2]["gap"])
    for group, (colour, _, dash) in distinct_styles(groups).items():
        own = [(name, line) for other, name, line in points if other == group]
        _add_line(figure, group, colour, dash, own, symbols)
    for name, symbol in symbols.items():
        marker = {"symbol": symbol, "size": 9, "color": "#7a7a7a"}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, hoverinfo="skip")
    figure.add_hline(y=0, line={"color": "#888888", "width": 1})
    start, baseline = finding.numbers["gap_from"], finding.numbers["baseline"]
    finish(figure, f"teacher - {start}, {shown.label}", f"gain over {baseline}, {shown.unit}".rstrip(", "))
    figure.update_layout(height=440, legend={"orientation": "h", "y": -0.2, "yanchor": "top"})
    return figure


def _setting(line: Mapping[str, Any], label: str | None) -> str:
    return "" if label is None else f"{line['setting']}, "


def _add_line(
    figure: go.Figure,
    group: str,
    colour: str,
    dash: str,
    points: Sequence[tuple[str, Mapping[str, Any]]],
    symbols: Mapping[str, str],
) -> None:
    """Draw the named points of one budget and setting, in the order of their gaps."""
    ends = [line["score_difference"] for _, line in points]
    place = {"x": [line["gap"] for _, line in points], "y": [end["mean"] for end in ends], "legendgroup": group}
    figure.add_scatter(**place, mode="lines", name=group, line={"color": colour, "dash": dash}, hoverinfo="skip")
    figure.add_scatter(
        **place,
        mode="markers",
        name=group,
        showlegend=False,
        marker={"symbol": [symbols[name] for name, _ in points], "size": 9, "color": colour},
        error_y=error_bars(ends, colour),
        customdata=[[name, end["n"]] for (name, _), end in zip(points, ends, strict=True)],
        hovertemplate="%{customdata[0]}: gap %{x:+.1f}<br>%{y:+.2f}, n = %{customdata[1]}<extra>" + group + "</extra>",
    )
