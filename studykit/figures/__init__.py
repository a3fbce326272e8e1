"""Data frames to plotly figures, the same in notebooks and dashboard. Torch-free.

Methods keep their colour, marker and dash in every figure, so that nothing rests on colour alone. Backgrounds are
transparent and text takes the surroundings' colour, so that a figure reads on light and dark.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.findings import labels
from studykit.imports import skip_address_grammar
from studykit.statistics import mean_interval, paired_difference

skip_address_grammar()  # plotly asks nbformat whether it may show a figure in a notebook

_STYLES = {
    "sft": ("#0072B2", "circle", "solid"),
    "kd": ("#D55E00", "diamond", "dash"),
}
_SPARE = (
    ("#009E73", "square", "dot"),
    ("#CC79A7", "triangle-up", "dashdot"),
    ("#B8860B", "cross", "longdash"),
    ("#56B4E9", "star", "longdashdot"),
    ("#8A8A8A", "x", "solid"),
)
_NAMES = {
    "exact_match": "exact match (points)",
    "token_error_rate": "phoneme or word error rate (%)",
    "nll": "NLL (nats per token)",
    "loss": "loss (nats per token)",
    "train_s": "seconds of training",
}
_IN_POINTS = {"exact_match", "token_error_rate"}
_LOWER_IS_BETTER = {"token_error_rate", "nll"}
MOST_POINTS = 2000
"""Curves are thinned to about so many points in all; a title says when they are."""


def score_against_budget(frame: pd.DataFrame, metric: str = "exact_match") -> go.Figure:
    """Return a metric against the budget in examples: each run a point, each method's mean a line with its 95% t band.

    Args:
        frame: finished runs from `results.load`.
        metric: a metric column; exact match and error rates are shown in points of 100.
    """
    figure = go.Figure()
    done = _done(frame, metric)
    for method in sorted(map(str, done["method"].unique()), key=_order):
        part = done[done["method"] == method]
        rows = [(int(str(b)), mean_interval(list(g))) for b, g in part.groupby("budget_examples")["value"]]
        _band(figure, method, rows)
        _means(figure, method, rows)
        _points(figure, method, part)
    _teacher(figure, done, metric)
    finish(figure, "examples in the budget", _NAMES.get(metric, metric), budgets=done["budget_examples"])
    return figure


def difference_against_budget(
    frame: pd.DataFrame, metric: str = "exact_match", baseline: str = "sft", arm: str = "kd"
) -> go.Figure:
    """Return the paired difference arm - baseline by budget, each seed a point, the mean with its 95% t interval."""
    figure = go.Figure()
    done = _done(frame, metric)
    colour, symbol, _ = style(arm)
    rows, seeds = [], []
    for budget, part in done.groupby("budget_examples"):
        a, b = (by_seed(part[part["method"] == m], "value") for m in (arm, baseline))
        shared = sorted(set(a) & set(b))
        if shared:
            rows.append((int(str(budget)), paired_difference(a, b)))
            seeds += [(int(str(budget)), a[s] - b[s], s) for s in shared]
    if rows:
        figure.add_scatter(
            x=[b for b, _ in rows],
            y=[i.mean for _, i in rows],
            mode="lines+markers",
            name=f"{arm} - {baseline}, mean",
            line={"color": colour},
            marker={"symbol": symbol, "size": 9},
            error_y={
                "type": "data",
                "symmetric": False,
                "color": colour,
                "array": [0 if i.high is None else i.high - i.mean for _, i in rows],
                "arrayminus": [0 if i.low is None else i.mean - i.low for _, i in rows],
            },
            hovertemplate="%{x:,} examples<br>%{y:+.2f}<extra></extra>",
        )
        figure.add_scatter(
            x=[b for b, _, _ in seeds],
            y=[d for _, d, _ in seeds],
            mode="markers",
            name="each seed",
            marker={"color": colour, "symbol": "circle-open", "size": 6},
            customdata=[s for _, _, s in seeds],
            hovertemplate="%{x:,} examples, seed %{customdata}<br>%{y:+.2f}<extra></extra>",
        )
    figure.add_hline(y=0, line={"color": "#888888", "width": 1})
    finish(
        figure,
        "examples in the budget",
        f"{arm} - {baseline}, {_NAMES.get(metric, metric)}",
        budgets=done["budget_examples"],
    )
    return figure


def loss_curves(curves: dict[str, pd.DataFrame], column: str = "loss", x: str = "step") -> go.Figure:
    """Return training curves by name, thinned where they are long.

    Args:
        curves: name of the arm or run to its metrics, from `results.read_metrics`.
        column: what to draw.
        x: `step`, `num_tokens` or `time_s`.
    """
    figure = go.Figure()
    keep = max(2, MOST_POINTS // max(1, len(curves)))
    thinned = False
    for name, curve in curves.items():
        if column not in curve or x not in curve:
            continue
        shown = curve.dropna(subset=[column])
        step = -(-len(shown) // keep)
        thinned |= step > 1
        colour, _, dash = style(name)
        across = shown[x] - shown[x].iloc[0] if x == "time_s" and len(shown) else shown[x]
        figure.add_scatter(
            x=across[::step],
            y=shown[column][::step],
            mode="lines",
            name=name,
            line={"color": colour, "dash": dash},
            hovertemplate="%{x:,}<br>%{y:.4f}<extra>" + name + "</extra>",
        )
    label = {"step": "optimizer step", "num_tokens": "tokens through the student", "time_s": "seconds"}[x]
    finish(figure, label + (" (thinned)" if thinned else ""), _NAMES.get(column, column.replace("_", " ")))
    return figure


def methods_compared(
    frame: pd.DataFrame, metric: str = "exact_match", cost: str = "train_s", baseline: str = "sft"
) -> go.Figure:
    """Return one line per method, best first: its mean over seeds with 95% t interval, and beside it what it cost.

    Args:
        frame: finished runs of one budget from `results.load`.
        metric: a metric column; exact match and error rates are shown in points of 100.
        cost: a cost column, such as `train_s` or `generated_tokens`; a method without it has no mark there.
        baseline: a vertical line marks its mean.
    """
    figure: Any = make_subplots(rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.03)
    done = _done(frame, metric)
    done = done.assign(name=labels(done) if len(done) else "")
    means = done.groupby("name")["value"].mean().sort_values(ascending=metric not in _LOWER_IS_BETTER)
    for name in map(str, means.index):
        part = done[done["name"] == name]
        own = mean_interval(list(part["value"]))
        colour, symbol, _ = style(name)
        look = {"color": colour, "symbol": symbol, "size": 9}
        reach = 0 if own.high is None else own.high - own.mean
        figure.add_scatter(
            x=[own.mean],
            y=[name],
            error_x={"type": "data", "array": [reach], "color": colour, "thickness": 1.5},
            mode="markers",
            marker=look,
            name=name,
            customdata=[own.n],
            hovertemplate="mean %{x:.2f}, n = %{customdata}<extra>" + name + "</extra>",
            row=1,
            col=1,
        )
        paid = part[cost].dropna() if cost in part else part["value"].iloc[:0]
        if len(paid):
            hover = "%{x:,.0f}<extra>" + name + "</extra>"
            figure.add_scatter(
                x=[paid.mean()], y=[name], mode="markers", marker=look, hovertemplate=hover, row=1, col=2
            )
    if baseline in means:
        figure.add_vline(x=float(means[baseline]), line={"color": "#888888", "width": 1, "dash": "dot"}, row=1, col=1)
    finish(figure, _NAMES.get(metric, metric), "")
    figure.update_layout(height=110 + 24 * len(means), showlegend=False, margin={"l": 10})
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(title=_NAMES.get(cost, cost.replace("_", " ")), type="log", nticks=4, row=1, col=2)
    return figure


def head_cost(points: Sequence[dict[str, Any]]) -> go.Figure:
    """Return seconds (above) and peak GiB (below) of the head against tokens, vocabulary and k, a line per signal.

    Args:
        points: with `signal`, `tokens`, `vocabulary`, `k` and `medians`; one axis varies at a time, and the first point
            has what the others stay at.
    """
    axes = ("tokens", "vocabulary", "k")
    figure: Any = make_subplots(rows=2, cols=3, shared_xaxes=True, vertical_spacing=0.06)
    measured = [point for point in points if "medians" in point]
    for column, axis in enumerate(axes, 1):
        fixed = {name: points[0][name] for name in axes if name != axis}
        for signal in dict.fromkeys(point["signal"] for point in measured):
            along = [p for p in measured if p["signal"] == signal and all(p[n] == v for n, v in fixed.items())]
            along = sorted(along, key=lambda point: point[axis])
            colour, symbol, dash = style(signal)
            for row, key in enumerate(("seconds", "gib"), 1):
                figure.add_scatter(
                    x=[point[axis] for point in along],
                    y=[point["medians"][key] for point in along],
                    mode="lines+markers" if len(along) > 1 else "markers",
                    name=f"teacher's {signal.replace('_', ' ')}",
                    legendgroup=signal,
                    showlegend=row == column == 1,
                    line={"color": colour, "dash": dash},
                    marker={"symbol": symbol, "size": 7},
                    row=row,
                    col=column,
                )
    finish(figure, "", "")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(rangemode="tozero")
    for column, axis in enumerate(axes, 1):
        figure.update_xaxes(title=axis, row=2, col=column)
    for row, title in enumerate(("seconds", "peak GiB"), 1):
        figure.update_yaxes(title=title, row=row, col=1)
    return figure


def by_seed(frame: pd.DataFrame, column: str) -> dict[int, float]:
    """Return a column's values by seed."""
    return {int(seed): float(value) for seed, value in zip(frame["seed"], frame[column], strict=True)}


def style(name: str) -> tuple[str, str, str]:
    """Return colour, marker symbol and line dash of a method; the same name always looks the same."""
    if name in _STYLES:
        return _STYLES[name]
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    colour, rest = number % len(_SPARE), number // len(_SPARE)
    marker, rest = rest % len(_SPARE), rest // len(_SPARE)
    return _SPARE[colour][0], _SPARE[marker][1], _SPARE[rest % len(_SPARE)][2]


def _order(method: str) -> tuple[int, str]:
    return (list(_STYLES).index(method) if method in _STYLES else len(_STYLES), method)


def _done(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    if metric not in frame:
        return frame.iloc[:0].assign(value=pd.Series(dtype=float))
    done = frame[(frame["status"] == "done")].dropna(subset=[metric, "budget_examples"])
    return done.assign(value=done[metric] * (100.0 if metric in _IN_POINTS else 1.0))


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
    """Draw the teacher's own score, one line for each teacher."""
    column = f"teacher_{metric}"
    if column not in done:
        return
    for teacher, part in done.dropna(subset=[column]).groupby("teacher"):
        level = float(part[column].mean()) * (100.0 if metric in _IN_POINTS else 1.0)
        figure.add_hline(
            y=level,
            line={"color": "#7a7a7a", "dash": "dot", "width": 1},
            annotation_text=f"{teacher} itself: {level:.{1 if metric in _IN_POINTS else 3}f}",
            annotation_position="top left",
        )


def finish(figure: go.Figure, x: str, y: str, budgets: pd.Series | None = None) -> None:
    """Give a figure its titles and the look that all of them share; budgets make a log axis with them as ticks."""
    figure.update_layout(
        xaxis_title=x,
        yaxis_title=y,
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7a7a7a", "size": 13},
        legend={"orientation": "h", "y": 1.08},
        hovermode="closest",
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False)
    if budgets is not None:
        ticks = sorted({int(budget) for budget in budgets})
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
