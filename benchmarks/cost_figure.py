"""Seconds (above) and peak GiB (below) of the head against tokens, vocabulary and k, a line per signal."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import finish, style


def draw_cost(points: Sequence[dict[str, Any]]) -> go.Figure:
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
