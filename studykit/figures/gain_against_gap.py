"""What students gain over the baseline against the gap to their teacher, one line per budget and setting."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import distinct_styles, error_bars, finish
from studykit.findings import Finding
from studykit.scorers import metric


def gain_against_gap(finding: Finding, label: str | None = None) -> go.Figure:
    """Return each setting's paired difference to the baseline against the gap, with its 95% t interval over seeds.

    The gap is the teacher's score minus that of students without one. Zero is the baseline.

    Args:
        finding: with a teacher's score in its lines, such as `teacher_strength`.
        label: the factor that points are labelled with, and not told apart by colour; None for the setting.
    """
    figure, shown = go.Figure(), metric(finding.numbers["score"])
    lines = [line for line in finding.numbers["lines"] if "gap" in line and "score_difference" in line]
    groups = [f"{_setting(line, label)}{line['budget_examples']:,} examples" for line in lines]
    for group, look in distinct_styles(groups).items():
        part = [line for line, other in zip(lines, groups, strict=True) if other == group]
        _points(figure, group, look, sorted(part, key=lambda line: line["gap"]), label)
    figure.add_hline(y=0, line={"color": "#888888", "width": 1})
    start, baseline = finding.numbers["gap_from"], finding.numbers["baseline"]
    finish(figure, f"teacher - {start}, {shown.label}", f"gain over {baseline}, {shown.unit}".rstrip(", "))
    figure.update_layout(height=440, legend={"orientation": "h", "y": -0.2, "yanchor": "top"})
    return figure


def _setting(line: Mapping[str, Any], label: str | None) -> str:
    return "" if label is None else f"{line['setting']}, "


def _points(
    figure: go.Figure, name: str, look: tuple[str, str, str], lines: Sequence[Mapping[str, Any]], label: str | None
) -> None:
    colour, symbol, dash = look
    ends = [line["score_difference"] for line in lines]
    texts = [str(line["setting"] if label is None else line["where"][label]).rpartition("/")[2] for line in lines]
    figure.add_scatter(
        x=[line["gap"] for line in lines],
        y=[end["mean"] for end in ends],
        mode="lines+markers+text",
        text=texts,
        textposition="top center",
        name=name,
        line={"color": colour, "dash": dash},
        marker={"symbol": symbol, "size": 9},
        error_y=error_bars(ends, colour),
        customdata=[[text, end["n"]] for text, end in zip(texts, ends, strict=True)],
        hovertemplate="%{customdata[0]}: gap %{x:+.1f}<br>%{y:+.2f}, n = %{customdata[1]}<extra>" + name + "</extra>",
    )
