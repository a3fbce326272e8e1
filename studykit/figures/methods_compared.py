"""One line per method, best first: its paired difference to the baseline with 95% t interval, and its cost."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import error_bars, finish, style, title
from studykit.findings import Finding


def methods_compared(finding: Finding, budget: int, cost: str = "train_s") -> go.Figure:
    """Return one line per method, best first: its paired difference to the baseline with 95% t interval, and its cost.

    Intervals and verdicts are those of the finding, whose correction is over all budgets. Filled: helps, hurts or a
    tie; open: cannot tell. The band is the margin of a tie. Without runs of the baseline there is no difference, and
    nothing is drawn.

    Args:
        finding: `methods`, over all budgets.
        budget: whose lines are drawn, in examples.
        cost: a column of cost, such as `train_s` or `generated_tokens`; a method without it has no mark there.
    """
    lines = [line for line in finding.numbers.get("lines", ()) if line["budget_examples"] == budget]
    judged = [line for line in lines if "verdict" in line]
    if not judged:
        return go.Figure()
    baseline, margin = finding.numbers["baseline"], judged[0]["verdict"]["tie"]
    figure: Any = make_subplots(rows=1, cols=2, shared_yaxes=True, column_widths=[0.68, 0.32], horizontal_spacing=0.03)
    for line in reversed([line for line in lines if "verdict" in line or line["method"] == baseline]):
        _difference(figure, line)
        _cost(figure, line["method"], line["cost"].get(cost))
    figure.add_vrect(x0=-margin, x1=margin, fillcolor="rgba(128,128,128,0.15)", line_width=0, row=1, col=1)
    figure.add_vline(x=0, line={"color": "#888888", "width": 1}, row=1, col=1)
    finish(figure, f"difference to {baseline}, {title(finding.numbers['score'])}", "")
    figure.update_layout(height=110 + 24 * len(judged), showlegend=False, margin={"l": 10})
    figure.update_yaxes(automargin=True)
    figure.update_xaxes(title=title(cost), type="log", nticks=4, row=1, col=2)
    return figure


def _difference(figure: Any, line: Mapping[str, Any]) -> None:
    """Draw a method's difference; that of the baseline is zero, without an interval."""
    name, found = line["method"], line.get("verdict")
    difference = line.get("score_difference", {"mean": 0.0, "high": None, "n": 0})
    colour, symbol, _ = style(name)
    is_open = found is not None and found["word"] == "cannot tell"
    said = "the baseline" if found is None else f"%{{x:+.2f}}, n = {difference['n']}: {found['phrase']}"
    figure.add_scatter(
        x=[difference["mean"]],
        y=[name],
        error_x=error_bars([difference], colour),
        mode="markers",
        marker={"color": colour, "symbol": f"{symbol}-open" if is_open else symbol, "size": 9},
        name=name,
        hovertemplate=f"{said}<extra>{name}</extra>",
        row=1,
        col=1,
    )


def _cost(figure: Any, name: str, mean: float | None) -> None:
    if mean:
        colour, symbol, _ = style(name)
        figure.add_scatter(
            x=[mean],
            y=[name],
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9},
            hovertemplate="%{x:,.0f}<extra>" + name + "</extra>",
            row=1,
            col=2,
        )
