"""Expected calibration error of the next token over the references: |accuracy - confidence| by confidence; in [0, 1].

At every token of a reference, given all before it, the student predicts its likeliest token; confidence is that
token's probability, and it is right where it is the reference's. All tokens of all items are sorted into bins of equal
width, and the error is the mean over tokens of the gap of their bin.

Source: Guo, Pleiss, Sun, Weinberger (2017, arXiv 1706.04599), On Calibration of Modern Neural Networks, section 2.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from studykit.scorers import Item, Metric, Score
from studykit.scorers._calibration import expected_calibration_error

METRIC = Metric("calibration error", unit="points", scale=100.0, higher_is_better=False, digits=1)
NEEDS_GENERATION = False
NEEDS_PREDICTIONS = True

Bins = Annotated[int, Field(ge=1)]


def calibration_error(item: Item, *, bins: Bins = 15) -> Score:
    """Return |accuracy - mean confidence| of one item's tokens; the metric of a run is no mean of these.

    Args:
        item: with predictions.
        bins: number of bins; an item alone is one.
    """
    assert item.predictions is not None
    confidence, right = item.predictions.confidence, item.predictions.is_right
    return Score(expected_calibration_error(confidence, right, 1) or 0.0, len(right))


def over_items(items: Sequence[Item], *, bins: Bins = 15) -> float | None:
    """Return the expected calibration error over the tokens of all items."""
    known = [item.predictions for item in items if item.predictions is not None]
    confidence = [value for predictions in known for value in predictions.confidence]
    return expected_calibration_error(confidence, [right for p in known for right in p.is_right], bins)
