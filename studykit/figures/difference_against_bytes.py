"""Each signal's paired difference to the dense teacher against its size, a score above and NLL below."""

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studykit.figures import finish, style
from studykit.findings.teacher_cache import teacher_cache
from studykit.scorers import metric

_FORMS = {"top_k": ("the k likeliest tokens", "#009E73", "square"), "samples": ("samples", "#CC79A7", "triangle-up")}


def difference_against_bytes(
    frame: pd.DataFrame,
    baseline: str = "sft",
    arm: str = "kd",
    score: str = "exact_match",
    folder: str | Path | None = None,
) -> go.Figure:
    """Return each signal's paired difference to the dense teacher against its size, a score above and NLL below.

    The bars are 95% t intervals, zero is the dense teacher, the dotted line the baseline's own difference.

    Args:
        frame: finished runs of one budget from `results.load`, their signals measured.
        baseline: the method without a teacher.
        arm: the method that gets the signals.
        score: the metric of the upper panel.
        folder: of all results, whose stored items the intervals are over too; None: over seeds alone.
    """
    panels = (("score_difference", metric(score)), ("nll_difference", metric("nll")))
    figure: Any = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    lines = teacher_cache(frame, baseline=baseline, arm=arm, score=score, folder=folder).numbers["lines"]
    kept = [line for line in lines if line["bytes"] is not None]
    for row, (key, shown) in enumerate(panels, 1):
        for form in _FORMS:
            part = [line for line in kept if line["signal"].startswith(form) and key in line]
            if part:
                _signals(figure, row, form, part, key, f".{shown.digits + 1}f")
        without = next((line for line in lines if line["signal"] == baseline and key in line), None)
        if without and kept:
            _level(figure, row, baseline, without[key]["mean"], [line["bytes"] for line in kept])
        figure.add_hline(y=0, line={"color": "#888888", "width": 1}, row=row, col=1)
    finish(figure, "", "")
    for row, (_, shown) in enumerate(panels, 1):
        figure.update_yaxes(title=f"{shown.title}, {shown.unit}<br>from dense", row=row, col=1)
    ticks = sorted({round(line["bytes"], 1) for line in kept})
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{tick:.0f}" for tick in ticks])
    figure.update_xaxes(title="bytes per response token", row=2, col=1)
    figure.update_layout(height=520, margin={"l": 80})
    return figure


def _signals(figure: Any, row: int, form: str, part: list[dict[str, Any]], key: str, digits: str) -> None:
    name, colour, symbol = _FORMS[form]
    ends = [line[key] for line in part]
    figure.add_scatter(
        x=[line["bytes"] for line in part],
        y=[end["mean"] for end in ends],
        mode="markers+text",
        text=[line["signal"].partition("=")[2] for line in part],
        textposition="middle right",
        name=name,
        legendgroup=form,
        showlegend=row == 1,
        marker={"color": colour, "symbol": symbol, "size": 9},
        error_y={
            "type": "data",
            "color": colour,
            "thickness": 1.5,
            "array": [0 if end["high"] is None else end["high"] - end["mean"] for end in ends],
        },
        customdata=[[line["signal"], end["n"]] for line, end in zip(part, ends, strict=True)],
        hovertemplate="%{customdata[0]}, %{x:.1f} bytes<br>%{y:+" + digits + "}, n = %{customdata[1]}<extra></extra>",
        row=row,
        col=1,
    )


def _level(figure: Any, row: int, name: str, level: float, sizes: list[float]) -> None:
    """Draw a level as a trace, since the axes do not make room for a shape."""
    figure.add_scatter(
        x=[min(sizes), max(sizes)],
        y=[level, level],
        mode="lines",
        name=name,
        legendgroup=name,
        showlegend=row == 1,
        line={"color": style(name)[0], "dash": "dot"},
        hovertemplate="%{y:+.3f}<extra>" + name + "</extra>",
        row=row,
        col=1,
    )
