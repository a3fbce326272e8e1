"""The student's own answers with probability lmbda, else the data's: decided anew for every micro-batch (GKD)."""

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.rollouts import Rollout, RolloutContext
from studykit.rollouts.student import Student


class Mixed(Rollout):
    """Return the batch as it is, or its prompts with answers sampled from the student.

    Args:
        lmbda: share of micro-batches that are the student's own; 0 is fixed data, 1 purely on-policy.
        temperature: of sampling.
        top_p: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of a sampled answer.

    Raises:
        InputError: an option out of range.

    Source:
        Agarwal et al. (2024), On-Policy Distillation of Language Models, algorithm 1.
    """

    def __init__(self, *, lmbda: float = 0.5, temperature: float = 1.0, top_p: float = 1.0, max_new_tokens: int = 128):
        if not 0 <= lmbda <= 1:
            raise InputError(f"rollout 'mixed': lmbda must lie in [0, 1], received {lmbda}")
        self.lmbda = lmbda
        self.student = Student(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return data or the student's own."""
        return self.student(batch, context) if context.chance() < self.lmbda else batch
