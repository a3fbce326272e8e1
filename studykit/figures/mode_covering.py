"""What a divergence does to a student that cannot be like its teacher: it covers both modes, or seeks one of them.

mode_covering()                                             # forward KL, half-way, reverse KL
ipywidgets.interact(mode_covering, beta=(0.0, 1.0, 0.05))   # with a slider, in a notebook
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.optimize import minimize
from scipy.stats import norm

from studykit.figures import finish, style

_X = np.linspace(-12, 12, 481)
_NAMES = {0.0: "beta = 0: forward KL", 1.0: "beta = 1: reverse KL"}


def mode_covering(
    beta: float | Sequence[float] = (0.0, 0.5, 1.0), weight: float = 0.6, distance: float = 6.0
) -> go.Figure:
    """Return a teacher with two modes and the student of one mode that is nearest to it, one panel per divergence.

    Args:
        beta: of the generalised Jensen-Shannon divergence, in [0, 1]: 0 is KL(teacher‖student), 1 is
            KL(student‖teacher).
        weight: of the teacher's left mode, in (0, 1).
        distance: between the modes, whose standard deviation is 1.
    """
    betas = [float(beta)] if isinstance(beta, int | float) else [float(one) for one in beta]
    titles = [_NAMES.get(one, f"beta = {one:g}") for one in betas]
    figure: Any = make_subplots(rows=1, cols=len(betas), shared_yaxes=True, subplot_titles=titles)
    teacher = two_modes(weight, distance)
    for column, one in enumerate(betas, 1):
        mean, spread = nearest_student(teacher, one)
        curves = {"teacher": teacher, "student": _normalised(norm.pdf(_X, mean, spread))}
        for name, curve in curves.items():
            colour, _, dash = style("kd" if name == "student" else "sft")
            line = {"color": colour, "dash": dash}
            figure.add_scatter(
                x=_X, y=curve, mode="lines", name=name, line=line, showlegend=column == 1, row=1, col=column
            )
    finish(figure, "", "density")
    figure.update_layout(height=300, legend={"y": 1.25}, margin={"t": 60})
    return figure


def two_modes(weight: float, distance: float) -> np.ndarray:
    """Return the teacher's probabilities on the grid: two normal distributions of standard deviation 1, float [X]."""
    centre = distance / 2
    return _normalised(weight * norm.pdf(_X, -centre, 1) + (1 - weight) * norm.pdf(_X, centre, 1))


def nearest_student(teacher: np.ndarray, beta: float) -> tuple[float, float]:
    """Return mean and standard deviation of the normal distribution with the smallest divergence from the teacher.

    >>> mean, spread = nearest_student(two_modes(0.5, 6.0), 0.0)      # forward KL: the moments of the teacher
    >>> abs(round(mean, 1)), round(spread, 1)                          # about the square root of 1 + 3²
    (0.0, 3.2)
    """
    starts = [(mean, np.log(spread)) for mean in (-4.0, 0.0, 4.0) for spread in (1.0, 3.0)]
    fits = [minimize(_divergence, start, args=(teacher, beta), method="Nelder-Mead", tol=1e-7) for start in starts]
    best = min(fits, key=lambda fit: fit.fun)
    return float(best.x[0]), float(np.exp(best.x[1]))


def _divergence(parameters: np.ndarray, p: np.ndarray, beta: float) -> float:
    """Return β KL(p‖m) + (1-β) KL(q‖m) with m = βp + (1-β)q, at the ends KL(p‖q) and KL(q‖p), nats."""
    q = _normalised(norm.pdf(_X, parameters[0], np.exp(np.clip(parameters[1], -3, 3))))
    if beta in (0.0, 1.0):
        return _kl(q, p) if beta else _kl(p, q)
    m = beta * p + (1 - beta) * q
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


def _kl(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * (np.log(a) - np.log(b))))


def _normalised(density: Any) -> np.ndarray:
    floor = np.maximum(density, 1e-12)
    return floor / floor.sum()
