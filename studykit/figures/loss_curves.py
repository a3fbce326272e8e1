"""Training curves by name, thinned where they are long."""

import pandas as pd
import plotly.graph_objects as go

from studykit.figures import finish, style, title

MOST_POINTS = 2000
"""Number of points, of all curves together, to which longer curves are thinned; the axis title then says so."""


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
    finish(figure, label + (" (thinned)" if thinned else ""), title(column))
    return figure
