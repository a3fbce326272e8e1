"""Expected calibration error of the choices: |accuracy - confidence| by confidence; in [0, 1].

Confidence is the probability of the likeliest choice, given that the answer is one of the choices (a softmax of their
log-likelihoods); it is right where it is the reference. Items are binned by it as tokens are in `calibration_error`.

Source: Guo, Pleiss, Sun, Weinberger (2017, arXiv 1706.04599), On Calibration of Modern Neural Networks, section 2.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from studykit.scorers import Item, Metric, Score
from studykit.scorers._calibration import expected_calibration_error
from studykit.scorers._choices import check_choices, is_right, probabilities

METRIC = Metric("calibration error of choices", unit="points", scale=100.0, higher_is_better=False, digits=1)
NEEDS_GENERATION = False
NEEDS_CHOICES = True

Bins = Annotated[int, Field(ge=1)]


def choice_calibration_error(item: Item, *, bins: Bins = 15) -> Score:
    """Return |right - confidence| of one item; the metric of a run is no mean of these.

    Args:
        item: with the likelihoods of its choices.
        bins: number of bins; an item alone is one.

    >>> item = Item("a", "", "yes", None, 0.0, 2, choices=("yes", "no"), choice_nll=(1.0, 1.0))
    >>> choice_calibration_error(item).value
    0.5
    """
    return Score(abs(is_right(item, item.choice_nll) - max(probabilities(item))))


def over_items(items: Sequence[Item], *, bins: Bins = 15) -> float | None:
    """Return the expected calibration error over all items."""
    confidence = [max(probabilities(item)) for item in items]
    return expected_calibration_error(confidence, [is_right(item, item.choice_nll) for item in items], bins)


def check(item: Item, *, bins: Bins = 15) -> None:
    """Refuse an item whose reference is none of its choices."""
    check_choices(item, "choice_calibration_error")
