"""Fits on curves that are known, against scipy's curve_fit, and rivals that lose where they should."""

import json

import numpy as np
import pytest
from scipy.optimize import curve_fit

from studykit.statistics.scaling import FORMS, LOGARITHM, PLAIN_POWER, POWER, fit_all

BUDGETS = np.repeat([500, 1_500, 5_000, 15_000, 40_000], 3)
CURVES = {
    POWER: lambda n: 50 - 900 * n**-0.5,
    PLAIN_POWER: lambda n: 30 * n**-0.4,
    LOGARITHM: lambda n: -20 + 7 * np.log(n),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_that_made_the_data_predicts_the_largest_budget_best(form):
    noise = np.random.default_rng(0).normal(0, 1e-3, len(BUDGETS))
    fits = fit_all(BUDGETS, CURVES[form](BUDGETS.astype(float)) + noise)
    assert sorted(fit.form for fit in fits) == sorted(FORMS)
    good = [fit for fit in fits if fit.error < 2e-3]  # a power law towards an asymptote can be one without
    assert form in [fit.form for fit in good]
    assert fits[0] in good
    assert abs(fits[0].held_out_error or 0) < 0.05


def test_parameters_are_found_and_the_next_budget_is_predicted():
    best = fit_all(BUDGETS, CURVES[POWER](BUDGETS.astype(float)))[0]
    assert best.form == POWER
    assert [best.parameters[name] for name in "abc"] == pytest.approx([50, -900, 0.5], rel=1e-4)
    assert best.predict([100_000]) == pytest.approx([50 - 900 * 100_000**-0.5], rel=1e-5)


def test_least_squares_is_that_of_scipy():
    noise = np.random.default_rng(2).normal(0, 0.5, len(BUDGETS))
    values = CURVES[POWER](BUDGETS.astype(float)) + noise
    (found,) = [fit for fit in fit_all(BUDGETS, values) if fit.form == POWER]
    expected = curve_fit(lambda n, a, b, c: a + b * n**-c, BUDGETS, values, p0=(45, -800, 0.4), maxfev=10_000)[0]
    assert [found.parameters[name] for name in "abc"] == pytest.approx(expected, rel=1e-3)
    assert found.error == pytest.approx(np.sqrt(np.mean((found.predict(BUDGETS) - values) ** 2)))
    count, squares = len(values), found.error**2 * len(values)
    assert found.aicc == pytest.approx(count * np.log(squares / count) + 8 + 40 / (count - 5))


def test_few_budgets_allow_few_forms_and_leave_none_out():
    assert fit_all([500] * 3, [1.0, 1.1, 0.9]) == []
    two = fit_all([500, 500, 1_000, 1_000], [1.0, 1.1, 2.0, 2.1])
    assert {fit.form for fit in two} == {PLAIN_POWER, LOGARITHM}
    assert all(fit.held_out_error is None for fit in two)
    three = fit_all([10, 100, 1_000], [1.0, 2.0, 3.0])
    assert three[0].form == LOGARITHM
    assert json.loads(json.dumps([fit.plain() for fit in three], allow_nan=False))
