"""The student drafts, the teacher replaces tokens that it finds too unlikely: interleaved sampling (SKD).

Formula: the student drafts γ tokens; from the first one outside the teacher's K likeliest the draft is dropped, and the
teacher samples that token; then the student goes on. K = 25, γ = 5.

Code: google-research/google-research@4c4299485319:speculative_kd/transformers/utils.py,
google-research/google-research@4c4299485319:speculative_kd/train/ddp_skd.py and
google-research/google-research@c1379edf46f6:speculative_kd/config/kd_train.yaml.

Agreement: tests/generation/test_speculative.py::test_answers_and_counts_are_those_of_plain_loops and
tests/generation/test_speculative.py::test_the_drafted_token_itself_is_checked_not_another_draw.

Differs: the release draws a second token from the student's distribution and checks that one, not the drafted one that
it keeps.

Differs: the K likeliest of the release are taken after temperature and top-p, where most tokens have probability 0;
here on the teacher's logits.

Differs: the release's loss begins at the logits after the first token of the answer, which is never trained on, and
averages each answer; here the first token counts, and all tokens alike.

Differs: the release turns the sample into text and back into tokens; here its tokens are kept.
"""

from typing import Annotated

from pydantic import Field

from studykit.collate import Batch
from studykit.generation import Sampling, Speculation, draft_and_verify
from studykit.generation.sampling import Temperature, TopP
from studykit.losses import Author
from studykit.models.states import evaluating
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext


class Interleaved(Rollout):
    """Return the prompts with answers that the student drafts and the teacher corrects on the way.

    These are between the student's answers (top_k is the whole vocabulary) and the teacher's (top_k is 1, and the
    teacher's temperature 0). Early in training most drafts are rejected, later hardly any; the share that is accepted
    is logged.

    Args:
        top_k: a drafted token is accepted while it is among the teacher's `top_k` likeliest.
        draft_tokens: γ, number of tokens that are drafted before the teacher reads them in one pass.
        temperature: of the student's sampling.
        top_p: of the student's sampling.
        teacher_temperature: of the teacher's replacements.
        teacher_top_p: of the teacher's replacements.
        max_new_tokens: maximum number of tokens of an answer.

    Raises:
        InputError: when called with data without prompts.

    Source:
        Xu et al. (2025), Speculative Knowledge Distillation: Bridging the Teacher-Student Gap Through Interleaved
        Sampling, algorithm 1.
    """

    needs_teacher = True

    def __init__(
        self,
        *,
        top_k: Annotated[int, Field(ge=1)] = 25,
        draft_tokens: Annotated[int, Field(ge=1)] = 5,
        temperature: Temperature = 0.5,
        top_p: TopP = 0.5,
        teacher_temperature: Temperature = 0.2,
        teacher_top_p: TopP = 0.5,
        max_new_tokens: MaxNewTokens = 128,
    ):
        self.max_new_tokens = max_new_tokens
        student, teacher = Sampling(temperature, top_p), Sampling(teacher_temperature, teacher_top_p)
        self.speculation = Speculation(top_k, draft_tokens, student, teacher)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with corrected drafts."""
        prompts, teacher = batch.prompts(), context.required_teacher
        with evaluating(context.student):
            completions = draft_and_verify(
                context.student,
                teacher.model,
                prompts,
                context.limit(prompts, self.max_new_tokens),
                context.generator,
                self.speculation,
                context.vocabulary,
            )
        context.count_completions(completions)
        context.count(scored_tokens=completions.scored_tokens[1])
        context.log_ratio(accepted=(completions.accepted_tokens, completions.verified_tokens))
        return context.join(prompts, completions.tokens, Author.STUDENT)
