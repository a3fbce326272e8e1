"""Types of fields that say which values are valid."""

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
