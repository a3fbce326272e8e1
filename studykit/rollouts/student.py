"""The student's own answers, sampled anew at every step: on-policy."""

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.generation import Sampling, sample
from studykit.losses import Author
from studykit.models.states import evaluating
from studykit.rollouts import Rollout, RolloutContext, answered, count_answers, new_token_limits


class Student(Rollout):
    """Return the prompts with answers sampled from the student, or from a mixture with the teacher.

    What the student does wrong is seen where it happens, instead of on answers it would never give. Each step costs
    about as many forward passes as an answer has tokens.

    Args:
        temperature: of sampling; 0 takes the likeliest token.
        top_p: only the likeliest tokens that together reach this mass are drawn.
        max_new_tokens: most tokens of an answer; what is longer goes without an end token.
        teacher_share: α of (1 - α) q + α p, mixed token by token; above 0 the teacher reads every token.

    Raises:
        InputError: an option out of range; later, data without prompts.

    Source:
        Agarwal et al. (2024), On-Policy Distillation of Language Models; the mixture is that of Gu et al. (2024),
        MiniLLM, section 2.2.
    """

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 128,
        teacher_share: float = 0.0,
    ):
        if not 0 <= teacher_share < 1:
            raise InputError(f"rollout 'student': teacher_share must lie in [0, 1), received {teacher_share}")
        self.sampling, self.max_new_tokens = Sampling(temperature, top_p), at_least_one(max_new_tokens)
        self.teacher_share = teacher_share
        self.needs_teacher = teacher_share > 0

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with new answers."""
        models = [(context.student, 1 - self.teacher_share)]
        if self.teacher_share > 0:
            models.append((context.required_teacher.model, self.teacher_share))
        prompts = batch.prompts()
        max_new_tokens = new_token_limits(prompts, self.max_new_tokens, context)
        with evaluating(context.student):
            answers = sample(models, prompts, max_new_tokens, self.sampling, context.generator, **context.decoding)
        count_answers(context, answers)
        context.count(scored_tokens=sum(answers.scored[1:]))
        return answered(batch, prompts, answers.tokens, Author.STUDENT, context.tokenizer.pad_token_id)


def at_least_one(max_new_tokens: int) -> int:
    """Return the number as it is.

    Raises:
        InputError: it is below 1.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be at least 1, received {max_new_tokens}")
    return max_new_tokens
