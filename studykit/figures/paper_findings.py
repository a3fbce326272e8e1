"""The paper's findings, and reasons or doubts about them: the contrast that tests each, from a report."""

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import finish, reach
from studykit.findings._claims import Check, Claim

_LOOKS = {
    "as in the paper": ("#009E73", "circle"),
    "otherwise": ("#D55E00", "diamond"),
    "open": ("#8A8A8A", "circle-open"),
    "confirmed": ("#009E73", "square"),
    "not confirmed": ("#D55E00", "square"),
}
_WIDTH = 52


def paper_findings(checks: Sequence[Check]) -> go.Figure:
    """Return one line per check: the difference of its contrast with its interval, and what came of it.

    Args:
        checks: of a report; those that nothing has tested are left out.
    """
    figure: Any = go.Figure()
    tested = [check for check in checks if check.verdict is not None]
    for here, (colour, symbol) in _LOOKS.items():
        part = [(check, check.verdict) for check in tested if check.here == here and check.verdict is not None]
        if not part:
            continue
        reached = [reach(verdict.difference) for _, verdict in part]
        figure.add_scatter(
            x=[verdict.difference.mean for _, verdict in part],
            y=[_name(check) for check, _ in part],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [above for _, above in reached],
                "arrayminus": [below for below, _ in reached],
                "color": colour,
            },
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 10},
            name=here,
            customdata=[[check.contrast, str(verdict)] for check, verdict in part],
            hovertemplate="%{customdata[0]}: %{x:+.1f}, %{customdata[1]}<extra>" + here + "</extra>",
        )
    units = sorted({check.verdict.unit for check in tested if check.verdict is not None})
    figure.add_vline(x=0, line={"color": "#888888", "width": 1})
    finish(figure, f"difference ({' or '.join(units)})" if units else "difference", "")
    names = [_name(check) for check in tested]
    figure.update_layout(height=140 + 20 * sum(name.count("<br>") + 2 for name in names))
    figure.update_yaxes(automargin=True, categoryorder="array", categoryarray=names, autorange="reversed")
    return figure


def _name(check: Check) -> str:
    text = check.of.text if isinstance(check.of, Claim) else f"Because {check.of.text}?"
    return "<br>".join(textwrap.wrap(f"{text[0].upper()}{text[1:]}", _WIDTH))
