"""Data in a specification: a source, what filters leave out of it, and how much of the rest is drawn."""

import math
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from studykit.errors import InputError
from studykit.spec.part import Part
from studykit.spec.values import OnOrNone, Seed


class Budget(Part):
    """How much data: a prefix of one ranking of the pool, counted in examples or in response tokens.

    With neither count the whole pool is meant. The same sampler and seed give nested budgets.
    """

    examples: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    sampler: str = "uniform"
    options: dict[str, Any] | None = Field(default=None, description="the sampler's own options, such as its models")
    seed: Seed = 0

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.examples is not None and self.tokens is not None:
            raise ValueError(f"give examples={self.examples} or tokens={self.tokens}, not both")
        return self


class Filters(Part):
    """Which examples of a source are left out before a budget is drawn, so that budgets stay nested."""

    max_tokens: int | None = Field(default=None, ge=1, description="tokens of prompt and answers, by the student")
    min_response_tokens: int | None = Field(default=None, ge=1, description="supervised tokens, by the student")
    max_turns: int | None = Field(default=None, ge=1, description="messages of user and assistant")
    drop_duplicates: bool | None = Field(default=None, description="keep the first of the same texts")
    on_empty: Literal["refuse", "drop"] | None = Field(default=None, description="empty answers; None: refuse")

    @field_validator("drop_duplicates", "on_empty")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value in (False, "refuse") else value


class Data(Part):
    """Where examples come from: a source by name, its options, what is left out of it, and how much of the rest."""

    source: str
    options: dict[str, Any] = Field(default={})
    split: str = "train"
    filters: Filters | None = None
    decontaminate: OnOrNone = Field(
        default=None, description="leaves examples with a held-out item, or its prompt, out before a budget is drawn"
    )
    decontaminated_sha256: str | None = Field(
        default=None, description="of the examples that `decontaminate` leaves; filled in by `study.pin`"
    )
    budget: Budget = Budget()
    sha256: str | None = Field(default=None, description="of the source's examples; filled in by `study.pin`")

    @field_validator("filters")
    @classmethod
    def _none_is_off(cls, filters: Filters | None) -> Filters | None:
        return None if filters == Filters() else filters


class MixPart(Part):
    """Data that is a part of every optimizer step."""

    data: Data
    weight: float = Field(gt=0, lt=1, description="share of a step")
    method: str | None = Field(default=None, description="that trains on it; None: the stage's")
    method_options: dict[str, Any] | None = Field(default=None, description="of that method")

    @model_validator(mode="after")
    def _options_of_a_method(self) -> Self:
        if self.method_options and self.method is None:
            raise ValueError("method_options are those of the part's own method: give method, too")
        return self


def with_first_parts(plain: Any) -> Any:
    """Return a specification in which the first part of a `mix` without `data` is the stage's data.

    Raises:
        InputError: the weights of such a mix do not sum to 1.
    """
    stages = plain.get("stages") if isinstance(plain, dict) else None
    if not isinstance(stages, list | tuple):
        return plain
    return plain | {"stages": [_with_first_part(stage, number) for number, stage in enumerate(stages)]}


def _with_first_part(stage: Any, number: int) -> Any:
    parts = stage.get("mix") if isinstance(stage, dict) and "data" not in stage else None
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(part, dict) for part in parts):
        return stage
    if named := [name for name in ("method", "method_options") if parts[0].get(name) is not None]:
        raise InputError(
            f"specification: stages.{number}.mix: the first part has the stage's {named[0]}: give it there"
        )
    weights = [part.get("weight") for part in parts]
    if all(isinstance(w, int | float) for w in weights) and not math.isclose(sum(weights), 1, abs_tol=1e-6):
        raise InputError(f"specification: stages.{number}.mix: the weights of a step sum to {sum(weights):g}, not to 1")
    return stage | {"data": parts[0].get("data"), "mix": list(parts[1:]) or None}
