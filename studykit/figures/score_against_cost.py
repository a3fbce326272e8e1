"""Score against cost, one point per setting, with the line of those that no cheaper setting equals (Pareto)."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import error_bars, finish, style, title
from studykit.findings import Finding, pareto_front
from studykit.scorers import metric

Line = Mapping[str, Any]

_MAX_LABELS = 12
"""Of more points only those on a front have their names beside them; the others show them when pointed at."""


def score_against_cost(finding: Finding, cost: str = "train_s", budget: int | None = None) -> go.Figure:
    """Return the mean score of each setting against its cost, with 95% t intervals over seeds.

    A step line joins the settings with which no other is both cheaper and at least as good; settings of different
    students, or other factors, have a line each.

    Args:
        finding: with costs in its lines, such as `on_policy`; another one has no points.
        cost: `train_s`, `teacher_reads`, `generated_tokens`, `student_tokens` or `peak_mem_gib`.
        budget: in examples; None for the largest.
    """
    figure, score = go.Figure(), metric(finding.numbers["score"])
    every = [line for line in finding.numbers.get("lines", ()) if "score" in line and cost in line.get("cost", {})]
    chosen = max((line["budget_examples"] for line in every), default=None) if budget is None else budget
    groups: dict[str, list[Line]] = {}
    for line in (line for line in every if line["budget_examples"] == chosen):
        groups.setdefault(line.get("factors", ""), []).append(line)
    fronts = [_front(lines, cost, 1 if score.higher_is_better else -1) for lines in groups.values()]
    for lines, front in zip(groups.values(), fronts, strict=True):
        _step_line(figure, front, max(line["cost"][cost] for line in lines), cost)
    shown = [line for lines in groups.values() for line in lines]
    labelled = shown if len(shown) <= _MAX_LABELS else [line for front in fronts for line in front]
    for line in sorted(shown, key=lambda line: line["cost"][cost]):
        _point(figure, line, cost, has_label=line in labelled)
    finish(figure, title(cost), title(finding.numbers["score"]))
    figure.update_layout(showlegend=False, height=460)
    return figure


def _front(lines: Sequence[Line], cost: str, sign: int) -> list[Line]:
    points = [(line["cost"][cost], -sign * line["score"]["mean"]) for line in lines]
    return [lines[number] for number in pareto_front(points)]


def _step_line(figure: go.Figure, front: Sequence[Line], highest: float, cost: str) -> None:
    """Draw a front, and on to the highest cost."""
    x = [*(line["cost"][cost] for line in front), highest]
    y = [line["score"]["mean"] for line in (*front, front[-1])]
    figure.add_scatter(
        x=x, y=y, mode="lines", line={"color": "#888888", "dash": "dot", "shape": "hv"}, hoverinfo="skip", name="front"
    )


def _point(figure: go.Figure, line: Line, cost: str, *, has_label: bool) -> None:
    setting = next(line[key] for key in ("setting", "method", "signal") if key in line)
    name = ", ".join(filter(None, (setting, line.get("factors"))))
    colour, symbol, _ = style(setting)
    figure.add_scatter(
        x=[line["cost"][cost]],
        y=[line["score"]["mean"]],
        mode="markers+text" if has_label else "markers",
        text=[name],
        textposition="top center",
        cliponaxis=False,
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_y=error_bars([line["score"]], colour),
        hovertemplate="%{x:,.0f}<br>%{y:.2f}<extra>" + name + "</extra>",
    )
