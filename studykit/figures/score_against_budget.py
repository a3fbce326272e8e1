"""A metric against the budget in examples: each run a point, each method's mean a line with its 95% t band.

Runs of one method with different options are different lines.
"""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from studykit.figures import _STYLES, finish, style, title, values_to_show
from studykit.scorers import metric as metric_of
from studykit.statistics import mean_interval


def score_against_budget(frame: pd.DataFrame, metric: str = "exact_match") -> go.Figure:
    """Return a metric against the budget in examples: each run a point, each method's mean a line with its 95% t band.

    Args:
        frame: finished runs from `results.load`.
        metric: a metric column.
    """
    figure = go.Figure()
    done = values_to_show(frame, metric)
    for method in sorted(map(str, done["name"].unique()), key=_order):
        part = done[done["name"] == method]
        rows = [(int(str(b)), mean_interval(list(g))) for b, g in part.groupby("budget_examples")["value"]]
        _band(figure, method, rows)
        _means(figure, method, rows)
        _points(figure, method, part)
    _teacher(figure, done, metric)
    finish(figure, "examples in the budget", title(metric), budgets=done["budget_examples"])
    return figure


def _order(method: str) -> tuple[int, str]:
    return (list(_STYLES).index(method) if method in _STYLES else len(_STYLES), method)


def _band(figure: go.Figure, method: str, rows: Sequence) -> None:
    bounded = [(b, i) for b, i in rows if i.low is not None]
    if not bounded:
        return
    colour = style(method)[0]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    budgets = [b for b, _ in bounded]
    figure.add_scatter(
        x=[*budgets, *reversed(budgets)],
        y=[*(i.high for _, i in bounded), *(i.low for _, i in reversed(bounded))],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.18)",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        legendgroup=method,
        showlegend=False,
        name=f"{method}, 95% interval",
    )


def _means(figure: go.Figure, method: str, rows: Sequence) -> None:
    colour, symbol, dash = style(method)
    figure.add_scatter(
        x=[b for b, _ in rows],
        y=[i.mean for _, i in rows],
        mode="lines+markers",
        name=method,
        legendgroup=method,
        line={"color": colour, "dash": dash},
        marker={"symbol": symbol, "size": 9},
        customdata=[i.n for _, i in rows],
        hovertemplate="%{x:,} examples<br>mean %{y:.2f}, n = %{customdata}<extra>" + method + "</extra>",
    )


def _points(figure: go.Figure, method: str, part: pd.DataFrame) -> None:
    colour, symbol, _ = style(method)
    figure.add_scatter(
        x=part["budget_examples"].astype(int),
        y=part["value"],
        mode="markers",
        legendgroup=method,
        showlegend=False,
        marker={"color": colour, "symbol": f"{symbol}-open", "size": 6, "opacity": 0.7},
        name=f"{method}, runs",
        customdata=part["seed"].astype(int),
        hovertemplate="%{x:,} examples, seed %{customdata}<br>%{y:.2f}<extra>" + method + "</extra>",
    )


def _teacher(figure: go.Figure, done: pd.DataFrame, metric: str) -> None:
    """Draw the score of the teacher itself, one line for each teacher."""
    column = f"teacher_{metric}"
    if column not in done:
        return
    for teacher, part in done.dropna(subset=[column]).groupby("teacher"):
        shown = metric_of(metric)
        level = float(part[column].mean()) * shown.scale
        figure.add_hline(
            y=level,
            line={"color": "#7a7a7a", "dash": "dot", "width": 1},
            annotation_text=f"{teacher} itself: {level:.{shown.digits}f}",
            annotation_position="top left",
        )
