"""Each setting's paired difference to the baseline with its 95% t interval, best first, one panel per budget."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import error_bars, finish, style
from studykit.findings import Finding
from studykit.scorers import metric

_LINE, _GAP, _MARGINS = 24, 44, 100
"""Pixels of one setting, between two panels, and above and below all of them."""


def differences_by_setting(finding: Finding) -> go.Figure:
    """Return each setting's paired difference to the baseline, best first, one panel per budget and factor.

    Zero is the baseline; the bars are 95% t intervals, as in the finding's table.

    Args:
        finding: with lines of settings, such as `divergences`.
    """
    shown = metric(finding.numbers["score"])
    lines = [line for line in finding.numbers["lines"] if "score_difference" in line]
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        title = ", ".join(filter(None, (f"{line['budget_examples']:,} examples", line.get("factors"))))
        panels.setdefault(title, []).append(line)
    if not panels:
        return go.Figure()
    heights = [_LINE * max(len(part), 2) for part in panels.values()]
    inner = sum(heights) + _GAP * (len(panels) - 1)
    figure: Any = make_subplots(
        rows=len(panels),
        cols=1,
        subplot_titles=list(panels),
        shared_xaxes=True,
        vertical_spacing=_GAP / inner,
        row_heights=heights,
    )
    sign = 1 if shown.higher_is_better else -1
    for row, part in enumerate(panels.values(), 1):
        _bars(figure, row, sorted(part, key=lambda line: sign * line["score_difference"]["mean"]))
        figure.add_vline(x=0, line={"color": "#888888", "width": 1}, row=row, col=1)
    finish(figure, "", "")
    figure.update_yaxes(automargin=True, dtick=1)
    figure.update_xaxes(title=f"{shown.title} - {finding.numbers['baseline']}, {shown.unit}", row=len(panels), col=1)
    figure.update_layout(height=inner + _MARGINS, showlegend=False, margin={"l": 10, "t": 40, "b": _MARGINS - 40})
    return figure


def _bars(figure: Any, row: int, lines: Sequence[Mapping[str, Any]]) -> None:
    for line in lines:
        name, difference = line["setting"], line["score_difference"]
        colour, symbol, _ = style(name)
        figure.add_scatter(
            x=[difference["mean"]],
            y=[name],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 9},
            error_x=error_bars([difference], colour),
            customdata=[difference["n"]],
            hovertemplate="%{x:+.2f}, n = %{customdata}<extra>" + name + "</extra>",
            row=row,
            col=1,
        )
