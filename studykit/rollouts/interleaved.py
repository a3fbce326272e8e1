"""The student drafts, the teacher replaces the first token it finds too unlikely: interleaved sampling (SKD)."""

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.generation import Sampling, draft_and_verify
from studykit.losses import Author
from studykit.models.states import evaluating
from studykit.rollouts import Rollout, RolloutContext, answered, count_answers, new_token_limits
from studykit.rollouts.student import at_least_one


class Interleaved(Rollout):
    """Return the prompts with answers that the student drafted and the teacher corrected on the way.

    Between on-policy data (top_k the whole vocabulary) and the teacher's own (top_k to 0): early in training most
    drafts are replaced, later hardly any. The share that is accepted is logged.

    Args:
        top_k: a drafted token is accepted while it is among the teacher's likeliest top_k.
        draft_tokens: γ, tokens drafted before the teacher reads them in one pass.
        temperature: of the student's sampling.
        top_p: of the student's sampling.
        teacher_temperature: of the teacher's replacements.
        teacher_top_p: of the teacher's replacements.
        max_new_tokens: most tokens of an answer.

    Raises:
        InputError: an option out of range; later, data without prompts.

    Source:
        Xu et al. (2025), Speculative Knowledge Distillation: Bridging the Teacher-Student Gap Through Interleaved
        Sampling, algorithm 1.
    """

    needs_teacher = True

    def __init__(
        self,
        *,
        top_k: int = 25,
        draft_tokens: int = 5,
        temperature: float = 0.5,
        top_p: float = 0.5,
        teacher_temperature: float = 0.2,
        teacher_top_p: float = 0.5,
        max_new_tokens: int = 128,
    ):
        if top_k < 1 or draft_tokens < 1:
            raise InputError(
                f"rollout 'interleaved': top_k and draft_tokens must be at least 1, received {top_k} and {draft_tokens}"
            )
        self.max_new_tokens = at_least_one(max_new_tokens)
        self.options = {
            "top_k": top_k,
            "draft_tokens": draft_tokens,
            "student_sampling": Sampling(temperature, top_p),
            "teacher_sampling": Sampling(teacher_temperature, teacher_top_p),
        }

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with corrected drafts."""
        prompts, teacher = batch.prompts(), context.required_teacher
        max_new_tokens = new_token_limits(prompts, self.max_new_tokens, context)
        settings = self.options | context.decoding
        with evaluating(context.student):
            answers, checked, accepted = draft_and_verify(
                context.student, teacher.model, prompts, max_new_tokens, context.generator, **settings
            )
        count_answers(context, answers)
        context.count(scored_tokens=answers.scored[1])
        context.log_ratio(accepted=(accepted, checked))
        return answered(batch, prompts, answers.tokens, Author.STUDENT, context.tokenizer.pad_token_id)
