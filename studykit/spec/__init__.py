"""What a run is, as plain data: student, teacher, stages, evaluations, seed. Torch-free and immutable.

    spec = RunSpec.parse({
        "student": {"name": "lexicon/base-small"},
        "teacher": {"name": "lexicon/teacher-a"},
        "stages": [{"data": {"source": "lexicon", "budget": {"examples": 500}}, "method": "kd", "steps": 300}],
        "seed": 0,
    })
    spec.run_id                                     # 12 hex digits: the same training is the same run
    spec.evaluation[0].eval_id                      # 12 hex digits: the same measurement is the same evaluation

A run is its training: `run_id` covers everything but the evaluations, and owns the weights. Each evaluation has an id
of what it measures, so that a trained run is scored on other items, or by other scorers, without being trained again.

Two-stage training is no special case: `stages` is a list. `None` means off, and is left out of the canonical
form, so that an optional field added later changes no existing id. A field that is renamed raises `SCHEMA`, and
`from_schema_1` translates what an earlier version wrote.

`epochs` of a stage become `steps` in `study.pin`, so that the same training has the same id whichever was given.
"""

import json
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from studykit.spec.data import Budget, Data, Filters, MixPart, with_first_parts
from studykit.spec.evaluation import Evaluation, repeated_evaluation
from studykit.spec.identity import SCHEMA, canonical, hash_id
from studykit.spec.models import WHERE, Endpoint, Lora, Student, Teacher
from studykit.spec.part import AppliedTo, Part, PassedTo
from studykit.spec.schema_1 import from_schema_1, is_schema_1
from studykit.spec.stage import Stage
from studykit.spec.values import MAX_SEED, Seed, steps_for_epochs

__all__ = [
    "MAX_SEED",
    "SCHEMA",
    "WHERE",
    "AppliedTo",
    "Budget",
    "Data",
    "Endpoint",
    "Evaluation",
    "Filters",
    "Lora",
    "MixPart",
    "Part",
    "PassedTo",
    "RunSpec",
    "Seed",
    "Stage",
    "Student",
    "Teacher",
    "from_schema_1",
    "is_schema_1",
    "repeated_evaluation",
    "steps_for_epochs",
]


class RunSpec(Part):
    """The whole of one run: what is trained, and how it is measured.

    `evaluation` holds any number of evaluations, the first of which is the primary one; a single one may be given
    without a list.
    """

    student: Student
    teacher: Teacher | None = None
    stages: tuple[Stage, ...] = Field(min_length=1)
    evaluation: tuple[Evaluation, ...] = ()
    seed: Seed = 0

    @field_validator("evaluation", mode="before")
    @classmethod
    def _as_list(cls, given: Any) -> Any:
        return () if given is None else (given,) if isinstance(given, dict | Evaluation) else given

    @field_validator("evaluation")
    @classmethod
    def _distinct(cls, evaluations: tuple[Evaluation, ...]) -> tuple[Evaluation, ...]:
        if repeated := repeated_evaluation(evaluations):
            raise ValueError(repeated)
        return evaluations

    @model_serializer(mode="wrap")
    def _without_no_evaluation(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in plain(self).items() if name != "evaluation" or value}

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Build a specification from plain data, also from that of an earlier schema.

        Raises:
            InputError: one line that names the faulty key; for an unknown key it gives the nearest one.
        """
        return super().parse(with_first_parts(from_schema_1(data) if is_schema_1(data) else data))

    @property
    def training(self) -> Self:
        """The same without evaluations: what a run's folder and its weights are named after."""
        return self.model_copy(update={"evaluation": ()})

    @property
    def without_code(self) -> Self:
        """The same without hashes of its stages' code: for work on what is trained, which the code made and left."""
        return self.model_copy(update={"stages": tuple(s.model_copy(update={"code": None}) for s in self.stages)})

    def canonical(self) -> str:
        """Return the one JSON text of this content: keys sorted, no spaces, `None` left out, no NaN.

        Where a teacher computes, and how it is reached, is left out.
        """
        return canonical(self, exclude={"teacher": WHERE, "stages": {"__all__": {"teacher": WHERE}}})

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain JSON data, `None` left out."""
        return json.loads(canonical(self))

    @property
    def run_id(self) -> str:
        """12 hex digits of the hash of everything but the evaluations: content, never order of arrival."""
        return hash_id(self.training.canonical())
