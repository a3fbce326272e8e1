"""Every prompt twice: with the teacher's answer, asked for once, and with a fresh one of the student's (DistiLLM-2)."""

from typing import Any

from studykit.collate import Batch
from studykit.rollouts import Rollout, RolloutContext, joined
from studykit.rollouts.student import Student
from studykit.rollouts.teacher import Teacher


class TeacherAndStudent(Rollout):
    """Return twice as many rows as the batch has: first the teacher's answers, then the student's.

    Args:
        temperature: of the student's sampling.
        top_p: of the student's sampling.
        teacher_temperature: of the teacher's sampling; 0 takes the likeliest token at every place.
        max_new_tokens: most tokens of an answer.

    Raises:
        InputError: an option out of range.

    Source:
        Ko et al. (2025), DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs.
    """

    needs_teacher = True

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        teacher_temperature: float = 0.0,
        max_new_tokens: int = 128,
    ):
        self.teacher = Teacher(temperature=teacher_temperature, max_new_tokens=max_new_tokens)
        self.student = Student(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return both answers to every prompt."""
        written = self.teacher(batch, context)
        return joined([written, self.student(batch, context)], context.tokenizer.pad_token_id)

    def state_dict(self) -> dict[str, Any]:
        """Return the teacher's answers so far."""
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.teacher.load_state_dict(state)
