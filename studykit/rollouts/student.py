"""The student's answers, sampled anew at every step: on-policy."""

from typing import Annotated

from pydantic import Field

from studykit.collate import Batch
from studykit.generation import Sampling, generate
from studykit.generation.sampling import Temperature, TopP
from studykit.losses import Author
from studykit.models.states import evaluating
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext


class Student(Rollout):
    """Return the prompts with answers sampled from the student, or from a mixture of student and teacher.

    The student is trained on sequences that it generates itself, so that it learns to recover from its errors. The
    longest answer of a batch determines the cost: one forward pass for each of its tokens.

    Args:
        temperature: of sampling; 0 takes the likeliest token.
        top_p: the smallest set of likeliest tokens with this probability is sampled from.
        max_new_tokens: maximum number of tokens of an answer; a longer one is cut off, without an end token.
        teacher_share: α of (1 - α) q + α p, mixed token by token; above 0 the teacher reads every token.

    Raises:
        InputError: when called with data without prompts.

    Source:
        Agarwal et al. (2024), On-Policy Distillation of Language Models; the mixture is that of Gu et al. (2024),
        MiniLLM, section 2.2.
    """

    def __init__(
        self,
        *,
        temperature: Temperature = 1.0,
        top_p: TopP = 1.0,
        max_new_tokens: MaxNewTokens = 128,
        teacher_share: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ):
        self.sampling, self.max_new_tokens = Sampling(temperature, top_p), max_new_tokens
        self.teacher_share = teacher_share
        self.needs_teacher = teacher_share > 0

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with new answers."""
        prompts = batch.prompts()
        return context.join(prompts, self.answer(prompts, context), Author.STUDENT)

    def answer(self, prompts: list[list[int]], context: RolloutContext) -> list[list[int]]:
        """Sample an answer to every prompt."""
        models = [(context.student, 1 - self.teacher_share)]
        if self.teacher_share > 0:
            models.append((context.required_teacher.model, self.teacher_share))
        max_new_tokens = context.limit(prompts, self.max_new_tokens)
        with evaluating(context.student):
            completions = generate(
                models, prompts, max_new_tokens, self.sampling, context.generator, context.vocabulary
            )
        context.count_completions(completions)
        context.count(scored_tokens=sum(completions.scored_tokens[1:]))
        return completions.tokens
