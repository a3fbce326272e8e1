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

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from studykit.spec.data import Budget, Data, Filters, MixPart, with_first_parts
from studykit.spec.part import Part
from studykit.spec.schema_1 import from_schema_1, is_schema_1
from studykit.spec.values import MAX_SEED, OnOrNone, ScorerOrLoss, Seed, steps_for_epochs

__all__ = [
    "MAX_SEED",
    "SCHEMA",
    "Budget",
    "Data",
    "Evaluation",
    "Filters",
    "Lora",
    "MixPart",
    "Part",
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

SCHEMA = 3
"""Version of what a specification means, hashed into every id; `RECORD_SCHEMA` is that of records on disk. Until 2 the
evaluation, of which there was one, was part of `run_id`."""


class Lora(Part):
    """Low-rank adapters through peft, in peft's words."""

    lora_r: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str | tuple[str, ...] = "all-linear"


class Student(Part):
    """The model that is trained.

    `name` is an embedded model (`lexicon/base-small`), the id of a finished run, a local folder or a hub id.
    With `random_config` the weights are drawn at random for that architecture (seeded by the run) and `name`
    gives the tokenizer only.
    """

    name: str
    revision: str | None = None
    random_config: dict[str, Any] | None = None
    lora: Lora | None = None
    attn_implementation: str | None = Field(default=None, description="in the words of transformers; None: its choice")
    sha256: str | None = Field(default=None, description="of the weights or configuration; filled in by `study.pin`")


class Teacher(Part):
    """The model that is distilled: named like a student, never trained, never quantised.

    With neither `top_k` nor `samples` the teacher runs at every step and gives its full distribution. With `top_k` it
    runs once, and a cache that all runs of a study share stores the `top_k` largest probabilities and one tail category
    for all others; with `samples` the cache stores this number of draws with replacement. `pruned` sets this share of
    the smallest weights of each linear layer to 0 first. `engine` generates the teacher's answers for methods
    that train on them: vLLM, or transformers where it is left out.
    """

    name: str
    revision: str | None = None
    top_k: int | None = Field(default=None, ge=1)
    samples: int | None = Field(default=None, ge=1, le=255)
    pruned: float | None = Field(default=None, ge=0, lt=1)
    engine: Literal["vllm"] | None = None
    attn_implementation: str | None = Field(default=None, description="in the words of transformers; None: its choice")
    sha256: str | None = Field(default=None, description="of the weights; filled in by `study.pin`")

    @model_validator(mode="after")
    def _one_cache(self) -> Self:
        if self.top_k is not None and self.samples is not None:
            raise ValueError(f"give top_k={self.top_k} or samples={self.samples}, not both")
        return self

    @property
    def is_cached(self) -> bool:
        """Whether it runs ahead of training, and is known on the sequences of the data only."""
        return self.top_k is not None or self.samples is not None


class Stage(Part):
    """One training stage: data, method, and the optimizer's settings (in the words of transformers).

    With `mix` every optimizer step has several parts, each from another source and budget. Where `data` is given,
    it gets what the weights leave; a `mix` without `data` lists all parts, and its weights sum to 1.
    """

    data: Data
    mix: tuple[MixPart, ...] | None = Field(default=None, min_length=1, description="parts of a step besides `data`")
    mix_by: Literal["examples", "tokens"] | None = Field(
        default=None, description="whether weights are shares of examples or of response tokens; None: examples"
    )
    exclude: tuple[int | str, ...] | None = Field(
        default=None, description="numbers of earlier stages whose examples are not drawn again, or ids of examples"
    )
    teacher: Teacher | None = Field(default=None, description="of this stage, instead of the run's")
    selected_sha256: str | None = Field(
        default=None, description="of the examples, where models selected them; filled in by `study.pin`"
    )
    validation: Data | None = Field(
        default=None, description="used during training by methods that need it, and to find the best weights"
    )
    method: str
    method_options: dict[str, Any] = Field(default={})
    turns: Literal["last", "each", "all"] | None = Field(
        default=None,
        description="answers of a conversation that are trained on: the last, each in a separate sequence, or all in "
        "one; None: all where the chat template renders each as when it was the last, otherwise the last",
    )
    steps: int | None = Field(default=None, ge=1, description="optimizer steps; instead of `epochs`")
    epochs: float | None = Field(
        default=None, gt=0, description="passes over the examples, instead of `steps`, which `study.pin` makes of them"
    )
    batch_size: int = Field(default=64, ge=1, description="sequences per device and micro-batch")
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    learning_rate: float = Field(gt=0)
    lr_scheduler_type: str = "cosine"
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=2048, ge=2, description="tokens; longer examples are refused, never cut silently")
    gradient_checkpointing: bool = False
    padding_free: bool | None = Field(
        default=None, description="sequences of a batch as one row without padding; None: on flash attention"
    )
    bf16: bool | None = Field(default=None, description="mixed precision; None: on GPUs that have it")
    load_best_model_at_end: OnOrNone = Field(
        default=None, description="whether the stage ends with the weights of its best validation score, not the last"
    )
    eval_steps: int | None = Field(
        default=None, ge=1, description="optimizer steps between two of these scores; None: a tenth of the steps"
    )
    metric_for_best_model: ScorerOrLoss = Field(
        default=None, description="the score: name of a scorer; None: loss on the validation data, nats per token"
    )
    code: dict[str, str] | None = Field(
        default=None, description="hashes of the source code that is not the released one; filled in by `study.pin`"
    )
    checkpoint_share: float | None = Field(
        default=None, gt=0, le=1, description="most of the wall time that checkpoints may take, a fraction; None: 0.03"
    )

    @field_validator("mix_by")
    @classmethod
    def _examples_are_the_default(cls, unit: str | None) -> str | None:
        return None if unit == "examples" else unit

    @model_validator(mode="after")
    def _rest_is_data(self) -> Self:
        if self.mix and (total := sum(part.weight for part in self.mix)) >= 1:
            raise ValueError(
                f"the weights of mix sum to {total:g} and leave nothing to data: they must sum to less than 1"
            )
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            given = "neither is given" if self.steps is None else f"received {self.steps} and {self.epochs:g}"
            raise ValueError(f"give steps or epochs, one of them: {given}")
        return self

    @property
    def parts(self) -> tuple[tuple[Data, float], ...]:
        """Data and weight of every part of a step; without a mixture, all of it is `data`."""
        mixed = tuple((part.data, part.weight) for part in self.mix or ())
        return ((self.data, round(1 - sum(weight for _, weight in mixed), 9)), *mixed)

    @property
    def methods(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Method and options by which each of the `parts` is trained."""
        own = (self.method, self.method_options)
        return (own, *((part.method, part.method_options or {}) if part.method else own for part in self.mix or ()))

    @property
    def label(self) -> str:
        """The names of its methods: "kd", or "sft + kd" where the parts of a step are trained differently."""
        return " + ".join(dict.fromkeys(name for name, _ in self.methods))

    @property
    def examples_per_step(self) -> int:
        """Examples of one optimizer step on one device."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def planned_steps(self) -> int:
        """Number of optimizer steps of a pinned stage.

        Raises:
            ValueError: it has epochs, and is not pinned.
        """
        if self.steps is None:
            raise ValueError("epochs become steps where a run is pinned, and this one is not: call study.pin first")
        return self.steps


class Evaluation(Part):
    """What is measured after training, on which held-out items.

    `data.budget` draws the items, `{"examples": 200}` uniformly from seed 0 whatever the seed of the run; without
    `examples` all of the split are scored.
    """

    data: Data
    items: int | None = Field(
        default=None, ge=1, description="the first this many of the split, instead of a draw by `data.budget`"
    )
    scorers: tuple[str | dict[str, Any], ...] = Field(
        default=("exact_match", "token_error_rate", "nll"), description='by name, or {"name": ..., option: value}'
    )
    choices: tuple[str, ...] | Literal["references"] | None = Field(
        default=None, description="answers to choose from, or labels, where an example names none; or all of the split"
    )
    teacher: str | None = Field(default=None, description="model that scorers compare the student's predictions with")
    teacher_sha256: str | None = Field(default=None, description="of its weights; filled in by `study.pin`")
    max_new_tokens: int = Field(default=256, ge=1)
    batch_size: int = Field(default=64, ge=1, description="items at a time; no part of `eval_id`")
    code: dict[str, str] | None = Field(
        default=None, description="hashes of the source code that is not the released one; filled in by `study.pin`"
    )

    @property
    def eval_id(self) -> str:
        """12 hex digits of the hash of the content: data, items, limits, scorers and their code.

        `batch_size` is a matter of memory and speed, like the machine and its number of threads, and is left out.
        """
        return hash_id(_canonical(self, exclude={"batch_size"}))

    @property
    def answers_id(self) -> str:
        """12 hex digits of the hash of what a student's answers depend on: everything but scorers and their code.

        Evaluations with the same one differ in what is computed from the answers, and can share them.
        """
        code = {name: sha256 for name, sha256 in (self.code or {}).items() if not name.startswith("scorer.")}
        answered = self.model_copy(update={"code": code or None})
        return hash_id(_canonical(answered, exclude={"batch_size", "scorers"}))


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
        """Return the one JSON text of this content: keys sorted, no spaces, `None` left out, no NaN."""
        return _canonical(self)

    @property
    def run_id(self) -> str:
        """12 hex digits of the hash of everything but the evaluations: content, never order of arrival."""
        return hash_id(self.training.canonical())


def repeated_evaluation(evaluations: Sequence[Evaluation]) -> str | None:
    """Return why a list of evaluations is refused, or None: each must differ from the others in its content."""
    first: dict[str, int] = {}
    for number, evaluation in enumerate(evaluations, 1):
        if (earlier := first.setdefault(evaluation.eval_id, number)) != number:
            return f"evaluations {earlier} and {number} are the same: remove one"
    return None


def _canonical(part: Part, exclude: set[str] | None = None) -> str:
    plain = part.model_dump(mode="json", exclude_none=True, exclude=exclude)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_id(canonical: str) -> str:
    """Return 12 hex digits of the sha256 of schema version and canonical JSON."""
    return hashlib.sha256(f"{SCHEMA}:{canonical}".encode()).hexdigest()[:12]
