"""Data frames to plotly figures, the same in notebooks and dashboard. Torch-free.

Methods keep their colour, marker and dash in every figure, so that nothing rests on colour alone. Backgrounds are
transparent and text takes the surroundings' colour, so that a figure reads on light and dark."""

import hashlib

import pandas as pd
import plotly.graph_objects as go

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


_NAMES = {
    "exact_match": "exact match (points)",
    "token_error_rate": "phoneme or word error rate (%)",
    "nll": "NLL (nats per token)",
    "loss": "loss (nats per token)",
    "train_s": "seconds of training",
}


_IN_POINTS = {"exact_match", "token_error_rate"}


_LOWER_IS_BETTER = {"token_error_rate", "nll"}


def by_seed(frame: pd.DataFrame, column: str) -> dict[int, float]:
    """Return a column's values by seed."""
    return {int(seed): float(value) for seed, value in zip(frame["seed"], frame[column], strict=True)}


def style(name: str) -> tuple[str, str, str]:
    """Return colour, marker symbol and line dash of a method; the same name always looks the same."""
    if name in _STYLES:
        return _STYLES[name]
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
    colour, rest = number % len(_SPARE), number // len(_SPARE)
    marker, rest = rest % len(_SPARE), rest // len(_SPARE)
    return _SPARE[colour][0], _SPARE[marker][1], _SPARE[rest % len(_SPARE)][2]


def _done(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    if metric not in frame:
        return frame.iloc[:0].assign(value=pd.Series(dtype=float))
    done = frame[(frame["status"] == "done")].dropna(subset=[metric, "budget_examples"])
    return done.assign(value=done[metric] * (100.0 if metric in _IN_POINTS else 1.0))


def finish(figure: go.Figure, x: str, y: str, budgets: pd.Series | None = None) -> None:
    """Give a figure its titles and the look that all of them share; budgets make a log axis with them as ticks."""
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
