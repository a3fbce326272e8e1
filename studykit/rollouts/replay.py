"""More of the student's answers once validation gets worse, many of them from a replay buffer (DistiLLM).

Formula: a batch is the student's with probability φ: new answers with probability φ (1 - progress), else rows of a
buffer; φ rises by 0.1 when the loss on validation data gets worse.

Code: jongwooko/distillm@17c0f98bc263:finetune.py.

Agreement:
tests/rollouts/test_replay.py::test_the_share_of_the_students_rows_is_the_threshold_and_new_answers_get_fewer.

Differs: the release compares validation with that at the last rise, by 0.1 nats, once an epoch; here with the check
before, by `tolerance` 0, ten times a stage.

Differs: the release trains on new answers as they are, and makes new ones until its buffer of 1,000 is full; here they
join the buffer and rows are drawn from it at once.
"""

from collections import deque
from typing import Annotated, Any

import torch
from pydantic import Field

from studykit.collate import Batch
from studykit.generation.sampling import Temperature, TopP
from studykit.losses import Author
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext
from studykit.rollouts.student import Student

_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]


class Replay(Rollout):
    """Return the batch unchanged, or answers of the student from a buffer.

    With probability φ, the threshold, a micro-batch is replaced by rows from the buffer, drawn at random. In a share
    of 1 - progress of these cases, or if the buffer is empty, the student first answers the batch's prompts and the
    answers join the buffer. φ rises whenever the loss on validation data is worse than at the check before: a run
    whose validation loss only improves is trained on the data.

    Args:
        threshold: φ at the start.
        rise: added to φ when validation gets worse.
        tolerance: nats by which the validation loss must rise to count as worse.
        checks: number of times that the validation loss is computed in a stage, evenly spread.
        capacity: maximum number of rows in the buffer; the oldest are removed first.
        temperature: of sampling.
        top_p: of sampling.
        max_new_tokens: maximum number of tokens of an answer.

    Source:
        Ko et al. (2024), DistiLLM: Towards Streamlined Distillation for Large Language Models, section 3.2.
    """

    needs_validation = True

    def __init__(
        self,
        *,
        threshold: _Share = 0.0,
        rise: _Share = 0.1,
        tolerance: float = 0.0,
        checks: _Count = 10,
        capacity: _Count = 1000,
        temperature: Temperature = 1.0,
        top_p: TopP = 1.0,
        max_new_tokens: MaxNewTokens = 128,
    ):
        self.threshold, self.rise, self.tolerance, self.checks = threshold, rise, tolerance, checks
        self.student = Student(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
        self.buffer: deque[tuple[list[int], list[int]]] = deque(maxlen=capacity)
        self.last: float | None = None
        self.checked = 0

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the data, or rows from the buffer."""
        self._update_threshold(context)
        number = context.draw_uniform()
        context.log_ratio(threshold=(self.threshold, 1))
        if number >= self.threshold:
            return batch
        if number < self.threshold * (1 - context.progress) or not self.buffer:
            prompts = batch.prompts()
            self.buffer.extend(zip(prompts, self.student.answer(prompts, context), strict=True))
        drawn = torch.randint(len(self.buffer), (len(batch.input_ids),), generator=context.generator)
        prompts, answers = zip(*(self.buffer[i] for i in drawn.tolist()), strict=True)
        return context.join(prompts, answers, Author.STUDENT)

    def _update_threshold(self, context: RolloutContext) -> None:
        """Compute the validation loss if a check is due, and raise the threshold if it is worse than before."""
        if context.validation_loss is None:
            raise ValueError("rollout 'replay' needs validation data, and the stage names none")
        if context.progress * self.checks < self.checked:
            return
        self.checked += 1
        loss = context.validation_loss()
        context.log_ratio(validation_loss=(loss, 1))
        if self.last is not None and loss > self.last + self.tolerance:
            self.threshold = min(1.0, self.threshold + self.rise)
        self.last = loss

    def state_dict(self) -> dict[str, Any]:
        """Return the threshold, the checks so far, and the buffer."""
        return {
            "threshold": self.threshold,
            "last": self.last,
            "checked": self.checked,
            "buffer": list(self.buffer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the threshold, the checks and the buffer."""
        self.threshold, self.last, self.checked = state["threshold"], state["last"], state["checked"]
        self.buffer = deque(state["buffer"], maxlen=self.buffer.maxlen)
