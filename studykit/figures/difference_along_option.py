"""Paired difference to the baseline along an option that is a number, such as beta, one line per budget and kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from studykit.figures import distinct_styles, error_bars, finish
from studykit.findings import Finding
from studykit.scorers import metric


def difference_along_option(finding: Finding, option: str, *, title: str = "", log: bool = False) -> go.Figure:
    """Return the difference to the baseline against an option, its means with 95% t intervals.

    A line is a budget and what the setting is called before its option in brackets or after a colon; settings without
    the option are left out. Zero is the baseline.

    Args:
        finding: with the option in its lines, such as `divergences` with `beta`.
        option: as the finding's lines call it.
        title: of the axis; the option's name where it is empty.
        log: whether the axis is logarithmic.
    """
    figure, shown = go.Figure(), metric(finding.numbers["score"])
    lines = [line for line in finding.numbers["lines"] if option in line["options"] and "score_difference" in line]
    names = [f"{_kind(line['setting'])}, {line['budget_examples']:,} examples" for line in lines]
    for name, look in distinct_styles(names).items():
        part = [line for line, other in zip(lines, names, strict=True) if other == name]
        _line(figure, name, look, sorted(part, key=lambda line: line["options"][option]), option)
    figure.add_hline(y=0, line={"color": "#888888", "width": 1})
    finish(figure, title or option, f"{shown.title} - {finding.numbers['baseline']}, {shown.unit}".rstrip(", "))
    if log:
        ticks = sorted({line["options"][option] for line in lines})
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    return figure


def _kind(setting: str) -> str:
    return setting.partition(" (")[0].partition(", ")[0]


def _line(
    figure: go.Figure, name: str, look: tuple[str, str, str], lines: Sequence[Mapping[str, Any]], option: str
) -> None:
    colour, symbol, dash = look
    ends = [line["score_difference"] for line in lines]
    figure.add_scatter(
        x=[line["options"][option] for line in lines],
        y=[end["mean"] for end in ends],
        mode="lines+markers",
        name=name,
        line={"color": colour, "dash": dash},
        marker={"symbol": symbol, "size": 9},
        error_y=error_bars(ends, colour),
        customdata=[[line["setting"], end["n"]] for line, end in zip(lines, ends, strict=True)],
        hovertemplate="%{customdata[0]}<br>%{y:+.2f}, n = %{customdata[1]}<extra></extra>",
    )
