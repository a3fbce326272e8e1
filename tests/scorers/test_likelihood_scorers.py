"""Scorers of likelihoods and predictions against values by hand and slow computations."""

import math

import numpy as np
import pytest

from studykit.scorers import Item, Predictions, metrics_of, score_items


def over(scorer, *items: Item) -> float:
    found = metrics_of(items, score_items(items, [scorer]), [scorer])
    assert len(found) == 1
    return next(iter(found.values()))


def chosen(reference: str, nll: tuple[float, ...], tokens: tuple[int, ...]) -> Item:
    choices = ("yes", "no", "by no means at all")
    return Item("a", "", reference, None, 0.0, 1, choices=choices, choice_nll=nll, choice_tokens=tokens)


def predicted(confidence, is_right, is_teachers=None) -> Item:
    return Item("a", "", "b", None, 0.0, 1, predictions=Predictions(confidence, is_right, is_teachers))


def test_the_sum_over_tokens_favours_short_choices_and_the_mean_does_not():
    item = chosen("by no means at all", (2.0, 3.0, 4.0), (2, 2, 6))
    assert over("choice", item) == 0
    assert over("choice_per_token", item) == 1  # 1, 1.5 and 2/3 nats per token
    assert over("choice", chosen("yes", (2.0, 3.0, 4.0), (2, 2, 6))) == 1
    assert over("choice", chosen("yes", (2.0, 2.0, 4.0), (2, 2, 6))) == 1  # the first of equal ones
    assert over("choice", chosen("no", (2.0, 2.0, 4.0), (2, 2, 6))) == 0


def slow_error(confidence, is_right, bins):
    """Return the expected calibration error, bin by bin."""
    error = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, p in enumerate(confidence) if (m - 1) / bins < p <= m / bins]
        if inside:
            accuracy = sum(is_right[i] for i in inside) / len(inside)
            error += len(inside) / len(confidence) * abs(accuracy - sum(confidence[i] for i in inside) / len(inside))
    return error


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_over_the_tokens_of_all_items(bins):
    generator = np.random.default_rng(1)
    confidence, is_right = generator.uniform(0.01, 1, 60).tolist(), (generator.uniform(size=60) < 0.5).tolist()
    items = [predicted(confidence[a:b], is_right[a:b]) for a, b in ((0, 7), (7, 40), (40, 60))]
    expected = slow_error(confidence, is_right, bins)
    assert over({"name": "calibration_error", "bins": bins}, *items) == pytest.approx(expected)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_calibration_error():
    sure = predicted([0.75] * 4, [True, True, True, False])
    assert over("calibration_error", sure) == 0
    assert over("calibration_error", predicted([1.0, 1.0], [True, False])) == 0.5


def test_the_calibration_error_of_choices_is_that_of_their_softmax():
    nll = [(0.5, 2.0, 3.0), (1.0, 0.9, 5.0), (3.0, 2.0, 0.1), (1.0, 1.0, 1.0)]
    items = [chosen("yes", values, (2, 2, 6)) for values in nll]
    confidence = [max(np.exp(-np.array(v)) / np.exp(-np.array(v)).sum()) for v in nll]
    expected = slow_error(confidence, [True, False, False, True], 15)
    assert over("choice_calibration_error", *items) == pytest.approx(expected)


def test_a_choice_that_is_all_but_impossible_breaks_nothing():
    assert over("choice_calibration_error", chosen("yes", (0.0, 1e5, 1e6), (2, 2, 6))) == 0


def test_bits_per_byte_are_all_bits_over_all_bytes():
    texts = [("é", 3.0), ("K AE T", 12.0)]
    items = [Item("a", "", t, None, nll, 2, reference_bytes=len(t.encode())) for t, nll in texts]
    assert over("bits_per_byte", *items) == pytest.approx((3.0 + 12.0) / math.log(2) / (2 + 6))


def test_the_agreement_is_over_tokens():
    items = [predicted([0.5], [True], [True]), predicted([0.5] * 3, [False] * 3, [True, False, False])]
    assert over("teacher_agreement", *items) == 2 / 4
