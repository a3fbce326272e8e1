"""Score against cost, one point per setting, with the line of those that no cheaper setting equals (Pareto)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import error_bars, finish, style, title
from studykit.findings import Finding
from studykit.scorers import metric


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
    lines = sorted((line for line in every if line["budget_examples"] == chosen), key=lambda line: line["cost"][cost])
    _front(figure, lines, cost, 1 if score.higher_is_better else -1)
    for line in lines:
        _point(figure, line, cost)
    finish(figure, title(cost), title(finding.numbers["score"]))
    figure.update_layout(showlegend=False, height=460)
    return figure


def _front(figure: go.Figure, lines: Sequence[Mapping[str, Any]], cost: str, sign: int) -> None:
    x, y = [], []
    for line in lines:
        if not y or sign * line["score"]["mean"] > sign * y[-1]:
            x.append(line["cost"][cost])
            y.append(line["score"]["mean"])
    if lines:
        x, y = [*x, lines[-1]["cost"][cost]], [*y, y[-1]]
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": "#888888", "dash": "dot", "shape": "hv"}, hoverinfo="skip", name="front"
    )


def _name(line: Mapping[str, Any]) -> str:
    """Return the setting, or method, of a line, and the values of what else is varied."""
    return ", ".join(map(str, (line.get("setting") or line["method"], *line.get("where", {}).values())))


def _point(figure: go.Figure, line: Mapping[str, Any], cost: str) -> None:
    name = _name(line)
    colour, symbol, _ = style(name)
    figure.add_scatter(
        x=[line["cost"][cost]],
        y=[line["score"]["mean"]],
        mode="markers+text",
        text=[name],
        textposition="top center",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_y=error_bars([line["score"]], colour),
        hovertemplate="%{x:,.0f}<br>%{y:.2f}<extra>" + name + "</extra>",
    )
