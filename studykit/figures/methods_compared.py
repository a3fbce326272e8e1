"""One line per method, best first: its paired difference to the baseline with 95% t interval, and its cost."""

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import finish, reach, style, title, values_to_show
from studykit.findings.methods import methods
from studykit.scorers import metric as metric_of
from studykit.statistics import Interval
from studykit.statistics.verdicts import Verdict


def methods_compared(
    frame: pd.DataFrame,
    metric: str = "exact_match",
    cost: str = "train_s",
    baseline: str = "sft",
    folder: str | Path | None = None,
) -> go.Figure:
    """Return one line per method, best first: its paired difference to the baseline with 95% t interval, and its cost.

    The intervals are those that the verdicts of the finding rest on. Filled: helps, hurts or a tie; open: cannot tell.
    The band is the margin of a tie. Without runs of the baseline there is no difference, and nothing is drawn.

    Args:
        frame: finished runs of one budget from `results.load`.
        metric: a metric column.
        cost: a cost column, such as `train_s` or `generated_tokens`; a method without it has no mark there.
        baseline: the method at zero.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.

    Raises:
        ValueError: the rows cannot be compared.
    """
    figure: Any = make_subplots(rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.03)
    found = methods(frame, baseline=baseline, score=metric, folder=folder).verdicts if metric in frame else {}
    done = values_to_show(frame, metric)
    names = list(done.groupby("name")["value"].mean().sort_values(ascending=metric_of(metric).higher_is_better).index)
    by_name = {contrast.rpartition(f" - {baseline} at ")[0]: one for contrast, one in found.items()}
    for name in [name for name in map(str, names) if name in by_name or (by_name and name == baseline)]:
        part = done[done["name"] == name]
        _difference(figure, name, by_name.get(name))
        _cost(figure, name, part[cost].dropna() if cost in part else part["value"].iloc[:0])
    if by_name:
        margin = next(iter(by_name.values())).tie
        figure.add_vrect(x0=-margin, x1=margin, fillcolor="rgba(128,128,128,0.15)", line_width=0, row=1, col=1)
        figure.add_vline(x=0, line={"color": "#888888", "width": 1}, row=1, col=1)
    finish(figure, f"difference to {baseline}, {title(metric)}", "")
    figure.update_layout(height=110 + 24 * len(by_name), showlegend=False, margin={"l": 10})
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(title=title(cost), type="log", nticks=4, row=1, col=2)
    return figure


def _difference(figure: Any, name: str, found: Verdict | None) -> None:
    """Draw a method's difference; that of the baseline is zero, without an interval."""
    interval = Interval(0.0, None, None, 0) if found is None else found.difference
    colour, symbol, _ = style(name)
    below, above = reach(interval)
    is_open = found is not None and found.word == "cannot tell"
    said = "the baseline" if found is None else f"%{{x:+.2f}}, n = {interval.n}: {found}"
    figure.add_scatter(
        x=[interval.mean],
        y=[name],
        error_x={"type": "data", "symmetric": False, "array": [above], "arrayminus": [below], "color": colour},
        mode="markers",
        marker={"color": colour, "symbol": f"{symbol}-open" if is_open else symbol, "size": 9},
        name=name,
        hovertemplate=f"{said}<extra>{name}</extra>",
        row=1,
        col=1,
    )


def _cost(figure: Any, name: str, values: pd.Series) -> None:
    if len(values):
        colour, symbol, _ = style(name)
        figure.add_scatter(
            x=[values.mean()],
            y=[name],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="%{x:,.0f}<extra>" + name + "</extra>",
            row=1,
            col=2,
        )
