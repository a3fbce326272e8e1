"""How the arms of a finding grow with the budget: fits, and how well they foresee the largest budget."""

from typing import Any

import pandas as pd

from studykit.scorers import metric
from studykit.statistics.scaling import POWER, Fit, fit_all

Fits = dict[str, list[Fit]]


def fits_of(runs: pd.DataFrame, score: str) -> Fits:
    """Return the fits of every name, best first, in the unit in which the metric is shown.

    Args:
        runs: finished runs with columns `name` and `budget_examples`.
        score: the metric; runs without it are left out.
    """
    known = runs.dropna(subset=[score]) if score in runs else runs.iloc[:0]
    return {
        str(name): fit_all(part["budget_examples"].astype(float).tolist(), (part[score] * metric(score).scale).tolist())
        for name, part in known.groupby("name")
    }


def scaling_sentence(fits: Fits, largest: int, score: str) -> str:
    """Return how far the power law and its best rival miss the largest budget; empty with too few budgets.

    Args:
        fits: by name.
        largest: the budget that was left out.
        score: the metric.
    """
    shown, parts = metric(score), {}
    for name, forms in fits.items():
        known = {fit.form: fit.held_out_error for fit in forms if fit.held_out_error is not None}
        rivals = [form for form in known if form != POWER]
        if POWER not in known or not rivals:
            return ""
        parts[name] = f"{known[POWER]:+.{shown.digits}f} for {name} ({rivals[0]}: {known[rivals[0]]:+.{shown.digits}f})"
    unit = f" {shown.unit}" if shown.unit else ""
    text = f"Fitted below {largest:,} examples, {POWER} misses the mean there by"
    return f" {text} {' and '.join(parts.values())}{unit}." if parts else ""


def plain_fits(fits: Fits) -> dict[str, Any]:
    """Return the fits as plain JSON data."""
    return {name: [fit.plain() for fit in forms] for name, forms in fits.items()}
