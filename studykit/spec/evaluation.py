"""What is measured after training, and on which held-out items."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from studykit.spec.data import Data
from studykit.spec.identity import canonical, hash_id
from studykit.spec.part import Part


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
        return hash_id(canonical(self, exclude={"batch_size"}))

    @property
    def answers_id(self) -> str:
        """12 hex digits of the hash of what a student's answers depend on: everything but scorers and their code.

        Evaluations with the same one differ in what is computed from the answers, and can share them.
        """
        code = {name: sha256 for name, sha256 in (self.code or {}).items() if not name.startswith("scorer.")}
        answered = self.model_copy(update={"code": code or None})
        return hash_id(canonical(answered, exclude={"batch_size", "scorers"}))


def repeated_evaluation(evaluations: Sequence[Evaluation]) -> str | None:
    """Return why a list of evaluations is refused, or None: each must differ from the others in its content."""
    first: dict[str, int] = {}
    for number, evaluation in enumerate(evaluations, 1):
        if (earlier := first.setdefault(evaluation.eval_id, number)) != number:
            return f"evaluations {earlier} and {number} are the same: remove one"
    return None
