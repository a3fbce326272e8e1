"""One line per method, best first: its mean over seeds with 95% t interval, and beside it what it cost."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import _LOWER_IS_BETTER, _NAMES, _done, finish, style
from studykit.findings import labels
from studykit.statistics import mean_interval


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
