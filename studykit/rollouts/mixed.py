"""The student's answers with probability lmbda, else the data's: drawn anew for every micro-batch (GKD).

Formula: with probability `lmbda` the answers of a batch are sampled from the student, else they are the data's; no
gradient passes through the sampling.

Differs: trl 1.16 samples at temperature 0.9 by default; here it is 1, which samples from the student as it is.
"""

from typing import Annotated

from pydantic import Field

from studykit.collate import Batch
from studykit.generation.sampling import Temperature, TopP
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext
from studykit.rollouts.student import Student


class Mixed(Rollout):
    """Return the batch unchanged, or its prompts with answers sampled from the student.

    Args:
        lmbda: share of micro-batches with the student's answers; 0 is fixed data, 1 purely on-policy.
        temperature: of sampling.
        top_p: the smallest set of likeliest tokens with this probability is sampled from.
        max_new_tokens: maximum number of tokens of a sampled answer.

    Source:
        Agarwal et al. (2024), On-Policy Distillation of Language Models, algorithm 1.
    """

    def __init__(
        self,
        *,
        lmbda: Annotated[float, Field(ge=0, le=1)] = 0.5,
        temperature: Temperature = 1.0,
        top_p: TopP = 1.0,
        max_new_tokens: MaxNewTokens = 128,
    ):
        self.lmbda = lmbda
        self.student = Student(temperature=temperature, top_p=top_p, max_new_tokens=max_new_tokens)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the data, or the student's answers."""
        return self.student(batch, context) if context.draw_uniform() < self.lmbda else batch
