"""One training stage: data, method, and the optimizer's settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from studykit.spec.data import Data, MixPart
from studykit.spec.models import Teacher
from studykit.spec.part import AppliedTo, Part, PassedTo
from studykit.spec.values import OnOrNone, ScorerOrLoss


@contextmanager
def checkpoint_activations(student: Any, is_on: bool) -> Iterator[None]:
    """Compute the activations of layers again in the backward pass, instead of storing them."""
    student.activation_checkpointing_enable()
    student.enable_input_require_grads()
    try:
        yield
    finally:
        student.activation_checkpointing_disable()
        student.disable_input_require_grads()


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
    learning_rate: Annotated[float, PassedTo("AdamW", "lr")] = Field(gt=0)
    lr_scheduler_type: Annotated[str, PassedTo("get_scheduler", "name")] = "cosine"
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(default=2048, ge=2, description="tokens; longer examples are refused, never cut silently")
    gradient_checkpointing: Annotated[bool, AppliedTo("training", checkpoint_activations)] = False
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
