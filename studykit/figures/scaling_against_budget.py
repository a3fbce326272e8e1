"""Both arms against the budget with a power law towards an asymptote, its best rival, and what they foresee."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from studykit.figures import finish, style, title
from studykit.findings._scaling import fits_of
from studykit.findings.data_size import arms
from studykit.scorers import metric as metric_of
from studykit.statistics.scaling import POWER, Fit

BEYOND = 4
"""Times the largest budget up to which the fits are drawn."""


def scaling_against_budget(
    frame: pd.DataFrame, metric: str = "exact_match", baseline: str = "sft", arm: str = "kd"
) -> go.Figure:
    """Return each arm's runs with the fit a + b n^-c as a line, and the rival that foresees the largest budget best.

    Args:
        frame: finished runs from `results.load`.
        metric: a metric column.
        baseline, arm: methods to compare.

    Raises:
        ValueError: the rows mix students, teachers or options.
    """
    figure = go.Figure()
    runs = arms(frame, baseline, arm)
    runs = runs.dropna(subset=[metric, "budget_examples"]) if metric in runs else runs.iloc[:0]
    for name, fits in fits_of(runs, metric).items():
        part = runs[runs["name"] == name]
        budgets = part["budget_examples"].astype(float).to_numpy()
        _points(figure, name, budgets, part[metric].to_numpy(float) * metric_of(metric).scale)
        rival = next((fit for fit in fits if fit.form != POWER), None)
        for fit in [*(fit for fit in fits if fit.form == POWER), *([rival] if rival else [])]:
            _curve(figure, name, fit, budgets)
    finish(figure, "examples in the budget", title(metric), budgets=runs["budget_examples"])
    return figure


def _points(figure: go.Figure, name: str, budgets: np.ndarray, values: np.ndarray) -> None:
    colour, symbol, _ = style(name)
    figure.add_scatter(
        x=budgets, y=values, mode="markers", name=name, marker={"color": colour, "symbol": f"{symbol}-open", "size": 7}
    )


def _curve(figure: Any, name: str, fit: Fit, budgets: np.ndarray) -> None:
    """Draw a fit: a power law solid, a rival dotted."""
    x = np.geomspace(budgets.min(), BEYOND * budgets.max(), 80)
    figure.add_scatter(
        x=x,
        y=fit.predict(x),
        mode="lines",
        name=f"{name}: {fit.form}",
        line={"color": style(name)[0], "dash": "solid" if fit.form == POWER else "dot", "width": 1.5},
        hovertemplate="%{x:,.0f} examples<br>%{y:.3f}<extra>" + f"{name}: {fit.form}" + "</extra>",
    )
