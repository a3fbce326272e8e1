"""Types of fields that say which values are valid."""

import math
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_SEED = 2**32 - 1
"""The largest seed that numpy takes."""

Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
"""A whole number as such: neither true nor 1.0 nor "1"."""

OnOrNone = Annotated[bool | None, AfterValidator(lambda value: value or None)]
"""A switch whose `false` is no other content than its absence."""

ScorerOrLoss = Annotated[str | None, AfterValidator(lambda name: None if name == "loss" else name)]
"""The name of a scorer; `loss` is no other content than its absence."""


def steps_for_epochs(epochs: float, examples: int, examples_per_step: int) -> int:
    """Return the fewest optimizer steps that take each of the examples `epochs` times, on average.

    >>> steps_for_epochs(1, 5000, 64), steps_for_epochs(0.48, 5000, 8)
    (79, 300)
    """
    return max(1, math.ceil(epochs * examples / examples_per_step - 1e-9))  # 0.48 * 5000 / 8 is not quite 300
