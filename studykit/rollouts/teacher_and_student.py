"""Every prompt twice: with the teacher's answer, generated once, and with a new one of the student's (DistiLLM-2).

Differs: a copy of the release, lyx0727/distillm-2@25bf280a440e:README.md, generates all answers before training, both
at temperature 0.8; here the teacher's are greedy and the student's are new at every step.
"""

from typing import Any

from studykit.collate import Batch
from studykit.generation.sampling import Temperature, TopP
from studykit.losses import Author
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext
from studykit.rollouts.student import Student
from studykit.rollouts.teacher import Teacher


class TeacherAndStudent(Rollout):
    """Return twice as many rows as the batch has: first those with the teacher's answers, then with the student's.

    Args:
        temperature: of the student's sampling.
        top_p: of the student's sampling.
        teacher_temperature: of the teacher's sampling; 0 takes the likeliest token at every position.
        max_new_tokens: maximum number of tokens of an answer.

    Raises:
        InputError: when called with data without prompts.

    Source:
        Ko et al. (2025), DistiLLM-2: A Contrastive Approach Boosts the Distillation of LLMs.
    """

    needs_teacher = True

    def __init__(
        self,
        *,
        temperature: Temperature = 1.0,
        top_p: TopP = 1.0,
        teacher_temperature: Temperature = 0.0,
        max_new_tokens: MaxNewTokens = 128,
    ):
        self.teacher = Teacher(temperature=teacher_temperature, max_new_tokens=max_new_tokens)
        self.student = Student(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return both answers to every prompt."""
        prompts = batch.prompts()
        answers = self.teacher.answer(batch, prompts, context) + self.student.answer(prompts, context)
        authors = [Author.TEACHER] * len(prompts) + [Author.STUDENT] * len(prompts)
        return context.join([*prompts, *prompts], answers, authors)

    def state_dict(self) -> dict[str, Any]:
        """Return the teacher's answers so far."""
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the teacher's answers."""
        self.teacher.load_state_dict(state)
