"""The paired difference arm - baseline by budget, each seed a point, the mean with its 95% t interval."""

import pandas as pd
import plotly.graph_objects as go

from studykit.figures import _NAMES, _done, by_seed, finish, style
from studykit.statistics import paired_difference


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
