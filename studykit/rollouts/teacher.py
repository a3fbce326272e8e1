"""The teacher's answers, asked for once per prompt: sequence-level distillation."""

from typing import Any

from studykit.collate import Batch
from studykit.generation import Sampling
from studykit.losses import Author
from studykit.rollouts import Rollout, RolloutContext, answered, count_answers, new_token_limits
from studykit.rollouts.student import at_least_one


class Teacher(Rollout):
    """Return the prompts with the teacher's answers; a prompt that comes again gets the answer it had.

    What is trained on is a data set that the teacher has written, paid for once. The student needs no access to the
    teacher's distribution, so that teacher and student may have different tokenizers.

    Args:
        temperature: of sampling; 0 takes the likeliest token at every place.
        top_p: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of an answer, in the teacher's tokens.

    Raises:
        InputError: an option out of range.

    Source:
        Kim, Rush (2016), Sequence-Level Knowledge Distillation, section 3.2; beam search there, greedy by default here.
    """

    needs_teacher = True
    across_tokenizers = True

    def __init__(self, *, temperature: float = 0.0, top_p: float = 1.0, max_new_tokens: int = 128):
        self.sampling, self.max_new_tokens = Sampling(temperature, top_p), at_least_one(max_new_tokens)
        self.answers: dict[str, list[int]] = {}

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with the teacher's answers."""
        prompts, teacher = batch.prompts(), context.required_teacher
        names = [",".join(map(str, prompt)) for prompt in prompts]
        new = {name: i for i, name in enumerate(names) if name not in self.answers}
        if new:
            places = list(new.values())
            max_new_tokens = new_token_limits([prompts[i] for i in places], self.max_new_tokens, context)
            made = teacher.answer(batch, places, max_new_tokens, self.sampling, context.generator)
            count_answers(context, made)
            context.count(scored_tokens=sum(made.scored))
            self.answers.update(zip(new, made.tokens, strict=True))
        answers = [self.answers[name] for name in names]
        return answered(batch, prompts, answers, Author.TEACHER, context.tokenizer.pad_token_id)

    def state_dict(self) -> dict[str, Any]:
        """Return the answers so far."""
        return {"answers": self.answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        self.answers = dict(state["answers"])
