"""Which models a run has: the student that is trained, with or without adapters, and the teacher that is distilled."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from studykit.spec.part import Part


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
