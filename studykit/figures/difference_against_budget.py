"""The paired difference arm - baseline by budget, each seed a point, the mean with its 95% t interval."""

import pandas as pd
import plotly.graph_objects as go

from studykit.figures import finish, reach, style, title
from studykit.findings._lines import Line, lines_of
from studykit.findings.data_size import arms


def difference_against_budget(
    frame: pd.DataFrame, metric: str = "exact_match", baseline: str = "sft", arm: str = "kd"
) -> go.Figure:
    """Return the paired difference arm - baseline by budget, each seed a point, the mean with its 95% t interval.

    Raises:
        ValueError: the rows mix students, teachers or options.
    """
    figure = go.Figure()
    runs = arms(frame, baseline, arm)
    lines = [line for line in lines_of(runs, baseline, metric, metric) if line.name == arm]
    lines = [line for line in lines if line.score is not None and line.score.difference is not None]
    if lines:
        _means(figure, lines, f"{arm} - {baseline}, mean", style(arm))
        _seeds(figure, lines, style(arm)[0])
    figure.add_hline(y=0, line={"color": "#888888", "width": 1})
    finish(
        figure,
        "examples in the budget",
        f"{arm} - {baseline}, {title(metric)}",
        budgets=pd.Series([line.budget for line in lines]),
    )
    return figure


def _means(figure: go.Figure, lines: list[Line], name: str, look: tuple[str, str, str]) -> None:
    colour, symbol, _ = look
    differences = [line.score.difference for line in lines if line.score and line.score.difference]
    figure.add_scatter(
        x=[line.budget for line in lines],
        y=[difference.mean for difference in differences],
        mode="lines+markers",
        name=name,
        line={"color": colour},
        marker={"symbol": symbol, "size": 9},
        error_y={
            "type": "data",
            "symmetric": False,
            "color": colour,
            "array": [reach(difference)[1] for difference in differences],
            "arrayminus": [reach(difference)[0] for difference in differences],
        },
        hovertemplate="%{x:,} examples<br>%{y:+.2f}<extra></extra>",
    )


def _seeds(figure: go.Figure, lines: list[Line], colour: str) -> None:
    points = [(line.budget, seed, value) for line in lines if line.score for seed, value in line.score.by_seed.items()]
    figure.add_scatter(
        x=[budget for budget, _, _ in points],
        y=[value for _, _, value in points],
        mode="markers",
        name="each seed",
        marker={"color": colour, "symbol": "circle-open", "size": 6},
        customdata=[seed for _, seed, _ in points],
        hovertemplate="%{x:,} examples, seed %{customdata}<br>%{y:+.2f}<extra></extra>",
    )
