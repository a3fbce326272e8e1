"""How a score grows with data: a + b n^-c, and rival forms that its prediction of the largest budget is compared with.

    best, *others = fit_all([500, 1_500, 5_000, 15_000], [1.60, 0.70, 0.40, 0.34])
    best.form, best.parameters, best.predict([40_000]), best.held_out_error

With a handful of budgets every smooth form fits; what tells them apart is a budget that was left out of the fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

POWER, PLAIN_POWER, LOGARITHM = "a + b n^-c", "b n^-c", "a + b log n"
FORMS = (POWER, PLAIN_POWER, LOGARITHM)
"""A power law towards an asymptote, one without it, and a straight line in the logarithm of the budget."""

_PARAMETERS = {POWER: 3, PLAIN_POWER: 2, LOGARITHM: 2}
_EXPONENTS = {POWER: (0.02, 3.0), PLAIN_POWER: (-2.0, 3.0)}
"""Of n; below 0.02 a power law towards an asymptote looks like the logarithm."""


@dataclass(frozen=True)
class Fit:
    """One form, fitted by least squares.

    Attributes:
        form: one of `FORMS`.
        parameters: a, b and c, as far as the form has them.
        error: root mean square of the residuals.
        aicc: Akaike's criterion, corrected for few points: lower is better; None with too few points.
        held_out_error: prediction - mean at the largest budget, fitted without it; None with too few budgets.
    """

    form: str
    parameters: dict[str, float] = field(default_factory=dict)
    error: float = 0.0
    aicc: float | None = None
    held_out_error: float | None = None

    def predict(self, budgets: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the fitted values at some budgets."""
        n, p = np.asarray(budgets, float), self.parameters
        if self.form == LOGARITHM:
            return p["a"] + p["b"] * np.log(n)
        return p.get("a", 0.0) + p["b"] * n ** -p["c"]

    def plain(self) -> dict[str, Any]:
        """Return the fit as plain JSON data."""
        return vars(self)


def fit_all(budgets: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray) -> list[Fit]:
    """Return every form that the budgets allow, the one that predicts the largest budget best first.

    Where there are too few budgets to leave one out, they are sorted by AICc, then by the error.

    Args:
        budgets: positive, one for each run.
        values: of a metric, one for each run.

    Example:
        >>> best = fit_all([1, 4, 16, 64], [3.0, 2.0, 1.5, 1.25])[0]                       # 1 + 2 / √n
        >>> best.form, {name: round(value, 3) for name, value in best.parameters.items()}
        ('a + b n^-c', {'a': 1.0, 'b': 2.0, 'c': 0.5})
    """
    n, y = np.asarray(budgets, float), np.asarray(values, float)
    found = [_fit(form, n, y) for form in FORMS if len(np.unique(n)) >= _PARAMETERS[form]]
    return sorted(
        found,
        key=lambda fit: (
            tuple(math.inf if x is None else abs(x) for x in (fit.held_out_error,))
            + (math.inf if fit.aicc is None else fit.aicc, fit.error)
        ),
    )


def _fit(form: str, n: np.ndarray, y: np.ndarray) -> Fit:
    parameters = _least_squares(form, n, y)
    squares = float(((Fit(form, parameters).predict(n) - y) ** 2).sum())
    count, free = len(y), _PARAMETERS[form] + 1
    aicc = None
    if count > free + 1 and squares > 0:
        aicc = count * math.log(squares / count) + 2 * free + 2 * free * (free + 1) / (count - free - 1)
    return Fit(form, parameters, math.sqrt(squares / count), aicc, _held_out_error(form, n, y))


def _held_out_error(form: str, n: np.ndarray, y: np.ndarray) -> float | None:
    rest = n < n.max()
    if len(np.unique(n[rest])) < _PARAMETERS[form]:
        return None
    predicted = Fit(form, _least_squares(form, n[rest], y[rest])).predict(n[~rest])
    return float(predicted.mean() - y[~rest].mean())


def _least_squares(form: str, n: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the parameters: for every exponent the others are linear, so that one number is searched for."""
    if form == LOGARITHM:
        return dict(zip("ab", _linear(np.stack([np.ones_like(n), np.log(n)], axis=1), y)[0], strict=True))

    def columns(c: float) -> np.ndarray:
        power = n**-c
        return np.stack([np.ones_like(n), power] if form == POWER else [power], axis=1)

    low, high = _EXPONENTS[form]
    grid = np.linspace(low, high, 61)
    nearest = int(np.argmin([_linear(columns(c), y)[1] for c in grid]))
    around = (float(grid[max(nearest - 1, 0)]), float(grid[min(nearest + 1, len(grid) - 1)]))
    c = float(
        minimize_scalar(lambda c: _linear(columns(c), y)[1], bounds=around, method="bounded", options={"xatol": 1e-9}).x
    )
    return dict(zip("ab" if form == POWER else "b", _linear(columns(c), y)[0], strict=True)) | {"c": c}


def _linear(columns: np.ndarray, y: np.ndarray) -> tuple[list[float], float]:
    """Return the coefficients of least squares and the sum of squares that is left."""
    coefficients = np.linalg.lstsq(columns, y, rcond=None)[0]
    return coefficients.tolist(), float(((columns @ coefficients - y) ** 2).sum())
