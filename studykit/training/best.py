"""The weights with the best validation score, instead of the last ones: `load_best_model_at_end` of a stage.

    best = Best(spec)
    best.consider(training.step, lambda: score(training), weights)     # every `eval_steps`, and after the last one
    best.weights                                                       # those of the best score so far

The score is the loss on the stage's validation data in nats per token, or the metric of a scorer, whose answers are at
most twice as long as the longest reference. Of equal scores the first one counts. Nothing random is drawn, so that a
run which only looks takes the same steps as one that does not.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from studykit.evaluation import answer_items
from studykit.generation.peers import dealing
from studykit.models.states import autocasting
from studykit.scorers import metric, metrics_of, score_items
from studykit.spec import Evaluation, Stage

if TYPE_CHECKING:
    from studykit.training.state import Training

LOSS = "loss"
"""The metric where none is named."""

_CHECKS = 10
"""Number of validation scores in a stage, where `eval_steps` is not given."""


class Best:
    """The best weights of a stage so far.

    Args:
        spec: of the stage.

    Attributes:
        step: after which they were taken; None before the first score.
        score: theirs.
        weights: on the CPU; empty before the first score.
    """

    def __init__(self, spec: Stage):
        self._every = spec.eval_steps or max(1, spec.planned_steps // _CHECKS)
        self._last_step = spec.planned_steps
        name = spec.metric_for_best_model or LOSS
        self._sign = 1 if name != LOSS and metric(name).higher_is_better else -1
        self.step: int | None = None
        self.score = math.nan
        self.weights: dict[str, Tensor] = {}

    def is_due(self, step: int) -> bool:
        """Whether the weights after this step are scored."""
        return step % self._every == 0 or step == self._last_step

    def consider(self, step: int, score: float, weights: Callable[[], dict[str, Tensor]]) -> None:
        """Keep the weights if their score is the best one; a score that is no finite number is none.

        Args:
            step: optimizer steps taken.
            score: after them.
            weights: returns what is trained; called where it is kept.
        """
        if math.isfinite(score) and (self.step is None or self._sign * score > self._sign * self.score):
            self.step, self.score = step, score
            self.weights = {name: value.detach().to("cpu", copy=True) for name, value in weights().items()}

    @property
    def found(self) -> dict[str, float]:
        """What the stage's manifest says of it; nothing where no score was a number."""
        return {} if self.step is None else {"best_step": self.step, "best_validation": self.score}

    def state_dict(self) -> dict[str, Any]:
        """Return the weights with step and score, for a checkpoint."""
        return {"step": self.step, "score": self.score, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.step, self.score, self.weights = state["step"], state["score"], state["weights"]


@torch.no_grad()
def validation_metric(training: "Training", name: str) -> float:
    """Return the metric of a scorer on the stage's validation examples; NaN where it has none."""
    data, encoded, student = training.spec.validation, training.stage.validation, training.context.student
    assert data is not None
    assert encoded is not None
    limit = 2 * int(encoded.response_tokens.max())
    evaluation = Evaluation(data=data, scorers=(name,), max_new_tokens=limit, batch_size=training.spec.batch_size)
    with autocasting(student, training.autocast()), dealing():
        items = answer_items(student, training.context.tokenizer, evaluation, training.stage.validation_examples)
    return metrics_of(items, score_items(items, (name,)), (name,)).get(name, math.nan)
