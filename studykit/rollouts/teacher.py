"""The teacher's answers, generated once per prompt: sequence-level distillation.

Formula: the teacher's answer y to a prompt, its likeliest by beam search, takes the place of the data's: the sum of
`-log q(y_t)` over its tokens.

Code: harvardnlp/seq2seq-attn@16f3c0c1ae67:README.md names the paper among what it implements; the code that makes the
teacher's answers was not seen.

Agreement: tests/generation/test_autoregressive.py::test_greedy_answers_are_those_of_transformers, token by token.

Differs: greedy decoding by default instead of beam search; `sampling_temperature` samples.

Differs: answers that do not end within `max_new_tokens` are left out and counted.
"""

from typing import Any

import torch

from studykit.collate import Batch
from studykit.errors import InputError
from studykit.generation import Sampling
from studykit.generation.sampling import Temperature, TopP
from studykit.losses import Author
from studykit.rollouts import MaxNewTokens, Rollout, RolloutContext

_ALL_CUT = 100
"""Answers, all of them cut, after which a training ends: the limit is wrong, and hours would be spent on nothing."""


class Teacher(Rollout):
    """Return the prompts with the teacher's answers; a prompt that was seen before gets the same answer again.

    The student is trained on a data set that the teacher writes once. It needs no access to the teacher's
    distribution, so teacher and student may have different tokenizers.

    Args:
        temperature: of sampling; 0 takes the likeliest token at every position.
        top_p: the smallest set of likeliest tokens with this probability is sampled from.
        max_new_tokens: maximum number of tokens of an answer; one that has not ended by then is cut.
        train_on_cut: train on answers that were cut too, which teach the student to stop nowhere; they are left out
            by default, and counted.

    Raises:
        InputError: when called with data without prompts.

    Source:
        Kim, Rush (2016), Sequence-Level Knowledge Distillation, section 3.2; beam search there, greedy by default here.
    """

    needs_teacher = True
    across_tokenizers = True

    def __init__(
        self,
        *,
        temperature: Temperature = 0.0,
        top_p: TopP = 1.0,
        max_new_tokens: MaxNewTokens = 128,
        train_on_cut: bool = False,
    ):
        self.sampling, self.max_new_tokens, self.train_on_cut = (
            Sampling(temperature, top_p),
            max_new_tokens,
            train_on_cut,
        )
        self.answers: dict[str, list[int]] = {}
        self.cut: set[str] = set()

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the prompts with the teacher's answers, those that were cut without a supervised token.

        Raises:
            InputError: all of the first hundred answers or more were cut, so that there is nothing to train on.
        """
        prompts = batch.prompts()
        answered = context.join(prompts, self.answer(batch, prompts, context), Author.TEACHER)
        if not self.train_on_cut:
            self._check_some_ended()
            cut = torch.tensor([_name(prompt) in self.cut for prompt in prompts])
            answered.loss_mask[cut.to(answered.loss_mask.device)] = False
        return answered

    def _check_some_ended(self) -> None:
        if len(self.cut) == len(self.answers) >= _ALL_CUT:
            raise InputError(
                f"the teacher ended none of its first {len(self.answers):,} answers within {self.max_new_tokens:,} "
                "tokens, and answers that are cut are not trained on: raise max_new_tokens, or set train_on_cut"
            )

    def answer(self, batch: Batch, prompts: list[list[int]], context: RolloutContext) -> list[list[int]]:
        """Return the teacher's answer to every prompt of a batch; new prompts are answered and remembered."""
        teacher = context.required_teacher
        names = [_name(prompt) for prompt in prompts]
        new = {name: row for row, name in enumerate(names) if name not in self.answers}
        if new:
            rows = list(new.values())
            max_new_tokens = context.limit([prompts[row] for row in rows], self.max_new_tokens)
            completions = teacher.generate(batch, rows, max_new_tokens, self.sampling, context.generator)
            context.count_completions(completions)
            context.count(scored_tokens=sum(completions.scored_tokens))
            answers = context.with_data_end(completions)
            self.answers.update(zip(new, answers, strict=True))
            generated = zip(new, answers, completions.tokens, completions.ended, strict=True)
            self.cut |= {name for name, answer, tokens, ended in generated if not ended and answer == tokens}
        return [self.answers[name] for name in names]

    def state_dict(self) -> dict[str, Any]:
        """Return the answers so far, and which of them were cut."""
        return {"answers": self.answers, "cut": sorted(self.cut)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the answers."""
        self.answers, self.cut = dict(state["answers"]), set(state["cut"])


def _name(prompt: list[int]) -> str:
    return ",".join(map(str, prompt))
