"""One line per method, best first: its mean over seeds with 95% t interval, and to the right its cost."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import finish, reach, style, title, values_to_show
from studykit.scorers import metric as metric_of
from studykit.statistics import mean_interval


def methods_compared(
    frame: pd.DataFrame, metric: str = "exact_match", cost: str = "train_s", baseline: str = "sft"
) -> go.Figure:
    """Return one line per method, best first: its mean over seeds with 95% t interval, and to the right its cost.

    Args:
        frame: finished runs of one budget from `results.load`.
        metric: a metric column.
        cost: a cost column, such as `train_s` or `generated_tokens`; a method without it has no mark there.
        baseline: a vertical line marks its mean.
    """
    figure: Any = make_subplots(rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.03)
    done = values_to_show(frame, metric)
    means = done.groupby("name")["value"].mean().sort_values(ascending=metric_of(metric).higher_is_better)
    for name in map(str, means.index):
        part = done[done["name"] == name]
        _score(figure, name, list(part["value"]))
        _cost(figure, name, part[cost].dropna() if cost in part else part["value"].iloc[:0])
    if baseline in means:
        figure.add_vline(x=float(means[baseline]), line={"color": "#888888", "width": 1, "dash": "dot"}, row=1, col=1)
    finish(figure, title(metric), "")
    figure.update_layout(height=110 + 24 * len(means), showlegend=False, margin={"l": 10})
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(title=title(cost), type="log", nticks=4, row=1, col=2)
    return figure


def _score(figure: Any, name: str, values: list[float]) -> None:
    interval, colour = mean_interval(values), style(name)[0]
    figure.add_scatter(
        x=[interval.mean],
        y=[name],
        error_x={"type": "data", "array": [reach(interval)[1]], "color": colour, "thickness": 1.5},
        mode="markers",
        marker=_marker(name),
        name=name,
        customdata=[interval.n],
        hovertemplate="mean %{x:.2f}, n = %{customdata}<extra>" + name + "</extra>",
        row=1,
        col=1,
    )


def _cost(figure: Any, name: str, values: pd.Series) -> None:
    if len(values):
        hover = "%{x:,.0f}<extra>" + name + "</extra>"
        figure.add_scatter(
            x=[values.mean()], y=[name], mode="markers", marker=_marker(name), hovertemplate=hover, row=1, col=2
        )


def _marker(name: str) -> dict[str, Any]:
    colour, symbol, _ = style(name)
    return {"color": colour, "symbol": symbol, "size": 9}
