"""Score against cost, one point per setting, with the line of those that no cheaper setting equals (Pareto)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import error_bars, finish, style, title
from studykit.findings import Finding
from studykit.scorers import metric

Line = Mapping[str, Any]

_MOST_NAMES = 12
"""Of more points only those on the front have their names beside them; the others show them when pointed at."""


def score_against_cost(finding: Finding, cost: str = "train_s", budget: int | None = None) -> go.Figure:
    """Return the mean score of each setting against its cost, with 95% t intervals over seeds.

    The step line joins the settings with which no other is both cheaper and at least as good.

    Args:
        finding: with costs in its lines, such as `on_policy`; another one has no points.
        cost: `train_s`, `teacher_reads`, `generated_tokens`, `student_tokens` or `peak_mem_gib`.
        budget: in examples; None for the largest.
    """
    figure, score = go.Figure(), metric(finding.numbers["score"])
    every = [line for line in finding.numbers.get("lines", ()) if "score" in line and cost in line.get("cost", {})]
    chosen = max((line["budget_examples"] for line in every), default=None) if budget is None else budget
    sign = 1 if score.higher_is_better else -1
    lines = [line for line in every if line["budget_examples"] == chosen]
    lines.sort(key=lambda line: (line["cost"][cost], -sign * line["score"]["mean"]))
    front = _front(lines, sign)
    _step_line(figure, front, lines[-1:], cost)
    for line in lines:
        _point(figure, line, cost, is_named=len(lines) <= _MOST_NAMES or line in front)
    finish(figure, title(cost), title(finding.numbers["score"]))
    figure.update_layout(showlegend=False, height=460)
    return figure


def _front(lines: Sequence[Line], sign: int) -> list[Line]:
    """Return the lines that score more than all before them; sign is -1 where a lower score is better."""
    front: list[Line] = []
    for line in lines:
        if not front or sign * line["score"]["mean"] > sign * front[-1]["score"]["mean"]:
            front.append(line)
    return front


def _step_line(figure: go.Figure, front: Sequence[Line], last: Sequence[Line], cost: str) -> None:
    """Draw the front, and on to the cost of the last line."""
    x = [line["cost"][cost] for line in (*front, *last)]
    y = [line["score"]["mean"] for line in (*front, *front[-1:])]
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": "#888888", "dash": "dot", "shape": "hv"}, hoverinfo="skip", name="front"
    )


def _name(line: Line) -> str:
    """Return the setting, or method, of a line, and where it is."""
    return ", ".join(filter(None, (line.get("setting") or line["method"], line.get("place"))))


def _point(figure: go.Figure, line: Line, cost: str, *, is_named: bool) -> None:
    name = _name(line)
    colour, symbol, _ = style(name)
    figure.add_scatter(
        x=[line["cost"][cost]],
        y=[line["score"]["mean"]],
        mode="markers+text" if is_named else "markers",
        text=[name],
        textposition="top center",
        cliponaxis=False,
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_y=error_bars([line["score"]], colour),
        hovertemplate="%{x:,.0f}<br>%{y:.2f}<extra>" + name + "</extra>",
    )
