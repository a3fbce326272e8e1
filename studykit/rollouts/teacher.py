"""The teacher's answers, generated once per prompt: sequence-level distillation."""

from typing import Any

from studykit.collate import Batch
from studykit.generation import Sampling
from studykit.generation.sampling import Temperature, TopP
from studykit.losses import Author
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext


class Teacher(Rollout):
    """Return the prompts with the teacher's answers; a prompt that was seen before gets the same answer again.

    The student is trained on a data set that the teacher writes once. It needs no access to the teacher's
    distribution, so teacher and student may have different tokenizers.

    Args:
        temperature: of sampling; 0 takes the likeliest token at every position.
        top_p: the smallest set of likeliest tokens with this probability is sampled from.
        max_new_tokens: maximum number of tokens of an answer.

    Raises:
        InputError: when called with data without prompts.

    Source:
        Kim, Rush (2016), Sequence-Level Knowledge Distillation, section 3.2; beam search there, greedy by default here.
    """

    needs_teacher = True
    across_tokenizers = True

    def __init__(self, *, temperature: Temperature = 0.0, top_p: TopP = 1.0, max_new_tokens: MaxNewTokens = 128):
        self.sampling, self.max_new_tokens = Sampling(temperature, top_p), max_new_tokens
        self.answers: dict[str, list[int]] = {}

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with the teacher's answers."""
        prompts = batch.prompts()
        return context.join(prompts, self.answer(batch, prompts, context), Author.TEACHER)

    def answer(self, batch: Batch, prompts: list[list[int]], context: RolloutContext) -> list[list[int]]:
        """Return the teacher's answer to every prompt of a batch; new prompts are answered and remembered."""
        teacher = context.required_teacher
        names = [",".join(map(str, prompt)) for prompt in prompts]
        new = {name: row for row, name in enumerate(names) if name not in self.answers}
        if new:
            rows = list(new.values())
            max_new_tokens = context.limit([prompts[row] for row in rows], self.max_new_tokens)
            completions = teacher.generate(batch, rows, max_new_tokens, self.sampling, context.generator)
            context.count_completions(completions)
            context.count(scored_tokens=sum(completions.scored_tokens))
            self.answers.update(zip(new, context.with_data_end(completions), strict=True))
        return [self.answers[name] for name in names]

    def state_dict(self) -> dict[str, Any]:
        """Return the answers so far."""
        return {"answers": self.answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the answers."""
        self.answers = dict(state["answers"])
