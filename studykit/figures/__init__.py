"""Data frames to plotly figures, the same in notebooks and dashboard. Torch-free.

A method has the same colour, marker and dash in every figure, so that nothing rests on colour alone. Backgrounds are
transparent and text is of a grey that can be read on light and dark.
"""

import hashlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from studykit.discovery import Room
from studykit.findings import Finding, figure_of, labels
from studykit.findings._answers import Answer
from studykit.findings._lines import finished
from studykit.scorers import metric
from studykit.statistics import Interval

FIGURES = Room("studykit.figures", kind="figure")

_STYLES = {
    "sft": ("#0072B2", "circle", "solid"),
    "kd": ("#D55E00", "diamond", "dash"),
}


_SPARE = (
    ("#009E73", "square", "dot"),
    ("#CC79A7", "triangle-up", "dashdot"),
    ("#B8860B", "cross", "longdash"),
    ("#56B4E9", "star", "longdashdot"),
    ("#8A8A8A", "x", "solid"),
)


_TITLES = {
    "loss": "loss (nats per token)",
    "taid_t": "weight t of the teacher",
    "train_s": "seconds of training",
    "student_tokens": "tokens read by the student",
    "teacher_reads": "tokens read by the teacher",
    "generated_tokens": "tokens generated",
    "written_tokens": "tokens written for the data",
    "peak_mem_gib": "peak memory (GiB)",
    "cache_bytes": "bytes of the cached signal",
}
"""Of columns that are no scorer's."""


def draw(
    name: str, finding: Finding, frame: pd.DataFrame, folder: Path | None = None, budget: int | None = None
) -> go.Figure:
    """Return the figure of a finding, or of its runs with those numbers of it that the figure has a parameter for.

    Args:
        name: of the figure.
        finding: whose `score` is a figure's `metric` too.
        frame: rows of runs.
        folder: of their results.
        budget: of a figure that shows one budget; the rows are of this budget then, the finding is over all of them.
    """
    function = FIGURES.member(name)
    known = finding.numbers | {
        "metric": finding.numbers.get("score"),
        "finding": finding,
        "frame": frame,
        "folder": folder,
        "budget": budget,
    }
    parameters = [p for p in inspect.signature(function).parameters if known.get(p) is not None]
    return function(**{parameter: known[parameter] for parameter in parameters})


def figures_of(answer: Answer, folder: Path) -> dict[int | None, go.Figure]:
    """Return the figures of an answer by budget, or one under None where it is over all of them; none without data.

    Args:
        answer: of `find_answers`.
        folder: of the study.
    """
    name, per_budget = figure_of(answer.name)
    done = answer.runs[(answer.runs["status"] == "done") & answer.runs["budget_examples"].notna()]
    if name is None:
        return {}
    budgets = sorted({int(budget) for budget in done["budget_examples"]}) if per_budget else [None]
    parts = {budget: done if budget is None else done[done["budget_examples"] == budget] for budget in budgets}
    drawn = {budget: draw(name, answer.finding, part, folder, budget) for budget, part in parts.items()}
    return {budget: figure for budget, figure in drawn.items() if figure.data}


def title(column: str) -> str:
    """Return the title of an axis that shows a column."""
    return _TITLES.get(column) or metric(column).label


def style(name: str) -> tuple[str, str, str]:
    """Return colour, marker symbol and line dash of a method; the same name always looks the same."""
    if name in _STYLES:
        return _STYLES[name]
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    colour, rest = number % len(_SPARE), number // len(_SPARE)
    marker, rest = rest % len(_SPARE), rest // len(_SPARE)
    return _SPARE[colour][0], _SPARE[marker][1], _SPARE[rest % len(_SPARE)][2]


def distinct_styles(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return colour, marker and dash by name, none of them twice among up to seven: for lines that are no methods."""
    looks = [*_STYLES.values(), *_SPARE]
    return {name: looks[number % len(looks)] for number, name in enumerate(dict.fromkeys(names))}


def values_to_show(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the finished runs with a budget and a metric, this as `value` in its unit, and their label as `name`."""
    done = finished(frame, column).dropna(subset=["budget_examples"])
    values = done[column] * metric(column).scale if column in done else pd.Series(dtype=float)
    return done.assign(value=values, name=labels(done))


def reach(interval: Interval) -> tuple[float, float]:
    """Return how far the bounds of an interval lie below and above its mean; 0 without bounds."""
    if interval.low is None or interval.high is None:
        return 0.0, 0.0
    return interval.mean - interval.low, interval.high - interval.mean


def error_bars(differences: Sequence[Mapping[str, Any]], colour: str) -> dict[str, Any]:
    """Return the error bars of intervals that a finding holds as plain data; none without bounds."""
    spread = [0 if end["high"] is None else end["high"] - end["mean"] for end in differences]
    return {"type": "data", "color": colour, "thickness": 1.5, "array": spread}


def finish(figure: go.Figure, x: str, y: str, budgets: pd.Series | None = None) -> None:
    """Set a figure's titles and the look that all figures share; with budgets x is a log axis with them as ticks."""
    figure.update_layout(
        xaxis_title=x,
        yaxis_title=y,
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7a7a7a", "size": 13},
        legend={"orientation": "h", "y": 1.08},
        hovermode="closest",
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False)
    figure.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False)
    if budgets is not None:
        ticks = sorted({int(budget) for budget in budgets})
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:,}" for tick in ticks])
