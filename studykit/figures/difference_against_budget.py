"""The paired difference arm - baseline by budget, each seed a point, the mean with its 95% t interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from studykit.figures import error_bars, finish, style, title
from studykit.findings import Finding

Lines = Sequence[Mapping[str, Any]]


def difference_against_budget(finding: Finding) -> go.Figure:
    """Return the paired difference arm - baseline by budget, each seed a point, the mean with its 95% t interval.

    Args:
        finding: `data_size`, whose intervals are drawn.
    """
    figure, numbers = go.Figure(), finding.numbers
    contrast, lines = f"{numbers['arm']} - {numbers['baseline']}", numbers["budgets"]
    if lines:
        _means(figure, lines, f"{contrast}, mean", style(numbers["arm"]))
        _seeds(figure, lines, style(numbers["arm"])[0])
    figure.add_hline(y=0, line={"color": "#888888", "width": 1})
    finish(
        figure,
        "examples in the budget",
        f"{contrast}, {title(numbers['score'])}",
        budgets=pd.Series([line["budget_examples"] for line in lines]),
    )
    return figure


def _means(figure: go.Figure, lines: Lines, name: str, look: tuple[str, str, str]) -> None:
    colour, symbol, _ = look
    differences = [line["score"]["difference"] for line in lines]
    figure.add_scatter(
        x=[line["budget_examples"] for line in lines],
        y=[difference["mean"] for difference in differences],
        mode="lines+markers",
        name=name,
        line={"color": colour},
        marker={"symbol": symbol, "size": 9},
        error_y=error_bars(differences, colour),
        hovertemplate="%{x:,} examples<br>%{y:+.2f}<extra></extra>",
    )


def _seeds(figure: go.Figure, lines: Lines, colour: str) -> None:
    points = [
        (line["budget_examples"], int(seed), value)
        for line in lines
        for seed, value in line["score"]["by_seed"].items()
    ]
    figure.add_scatter(
        x=[budget for budget, _, _ in points],
        y=[value for _, _, value in points],
        mode="markers",
        name="each seed",
        marker={"color": colour, "symbol": "circle-open", "size": 6},
        customdata=[seed for _, seed, _ in points],
        hovertemplate="%{x:,} examples, seed %{customdata}<br>%{y:+.2f}<extra></extra>",
    )
