"""More of the student's own answers once validation gets worse, many of them from a replay buffer (DistiLLM)."""

from collections import deque
from typing import Any

import torch

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.losses import Author
from studykit.rollouts import Rollout, RolloutContext, answered
from studykit.rollouts.student import Student


class Replay(Rollout):
    """Return the batch as it is, or rows of the student's own answers out of a buffer.

    With φ the threshold, a micro-batch is with probability φ (1 - progress) answered anew by the student and put into
    the buffer, and else with probability φ as many rows are drawn from the buffer. φ rises whenever the loss on
    validation data is worse than at the check before. So a run whose validation only improves stays on the data.

    Args:
        threshold: φ at the start.
        rise: added to φ when validation gets worse.
        tolerance: nats by which it must get worse.
        checks: how often validation is looked at in a stage, evenly spread.
        capacity: rows in the buffer; the oldest make place.
        temperature: of sampling.
        top_p: of sampling.
        max_new_tokens: most tokens of an answer.

    Raises:
        InputError: an option out of range.

    Source:
        Ko et al. (2024), DistiLLM: Towards Streamlined Distillation for Large Language Models, section 3.2.
    """

    needs_validation = True

    def __init__(
        self,
        *,
        threshold: float = 0.0,
        rise: float = 0.1,
        tolerance: float = 0.0,
        checks: int = 10,
        capacity: int = 1000,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 128,
    ):
        for name, value in {"threshold": threshold, "rise": rise}.items():
            if not 0 <= value <= 1:
                raise InputError(f"rollout 'replay': {name} must lie in [0, 1], received {value}")
        if checks < 1 or capacity < 1:
            raise InputError("rollout 'replay': checks and capacity must be at least 1")
        self.threshold, self.rise, self.tolerance, self.checks = threshold, rise, tolerance, checks
        self.student = Student(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)
        self.buffer: deque[tuple[list[int], list[int]]] = deque(maxlen=capacity)
        self.last: float | None = None
        self.checked = 0

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return data, or rows from the buffer."""
        self._look(context)
        chance = context.chance()
        context.log_ratio(threshold=(self.threshold, 1))
        if chance >= self.threshold:
            return batch
        if chance < self.threshold * (1 - context.progress) or not self.buffer:
            self._keep(self.student(batch, context))
        places = torch.randint(len(self.buffer), (len(batch.input_ids),), generator=context.generator)
        prompts, answers = zip(*(self.buffer[i] for i in places.tolist()), strict=True)
        return answered(batch, list(prompts), answers, Author.STUDENT, context.tokenizer.pad_token_id)

    def _look(self, context: RolloutContext) -> None:
        """Ask for the validation loss where a check is due, and raise the threshold if it is worse than before."""
        if context.validation_loss is None:
            raise ValueError("rollout 'replay' asks for validation data, and the stage names none")
        if context.progress * self.checks < self.checked:
            return
        self.checked += 1
        loss = context.validation_loss()
        context.log_ratio(validation_loss=(loss, 1))
        if self.last is not None and loss > self.last + self.tolerance:
            self.threshold = min(1.0, self.threshold + self.rise)
        self.last = loss

    def _keep(self, rows: Batch) -> None:
        self.buffer.extend(rows.split_rows())

    def state_dict(self) -> dict[str, Any]:
        """Return threshold, checks so far, and the buffer."""
        return {
            "threshold": self.threshold,
            "last": self.last,
            "checked": self.checked,
            "buffer": list(self.buffer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.threshold, self.last, self.checked = state["threshold"], state["last"], state["checked"]
        self.buffer = deque(state["buffer"], maxlen=self.buffer.maxlen)
