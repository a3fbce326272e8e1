"""A run with everything that its specification names looked up, once: what training, evaluation and capture take."""

from dataclasses import dataclass, field

from studykit.chat import Encoded
from studykit.data import StageData
from studykit.methods import Recipe
from studykit.models.names import ModelRef
from studykit.sources import Example
from studykit.spec import RunSpec, Stage


@dataclass(frozen=True)
class ResolvedStage:
    """One training stage.

    Attributes:
        spec: the pinned specification of the stage.
        recipe: of its method, with the method's options.
        data: what it trains on.
        validation: what its method computes the student's loss on during training; None for other methods.
    """

    spec: Stage
    recipe: Recipe
    data: StageData
    validation: Encoded | None = None


@dataclass(frozen=True)
class ResolvedRun:
    """A pinned specification with its models, recipes and data.

    Attributes:
        spec: the pinned specification.
        student: the model that is trained; with a `random_config`, its tokenizer alone.
        teacher: the model that is distilled; None where no stage needs one.
        stages: in their order.
        held_out: the examples of the evaluation; none without one.
    """

    spec: RunSpec
    student: ModelRef
    teacher: ModelRef | None
    stages: tuple[ResolvedStage, ...]
    held_out: list[Example] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        """12 hexadecimal digits: the hash of the pinned specification."""
        return self.spec.run_id
