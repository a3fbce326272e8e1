"""Which sequences a step trains on, one way per file: the data's answers, the teacher's, the student's, or a mixture.

A rollout is a function `name(batch, context, *, option=default) -> Batch` in a file of the same name, or a class
derived from `Rollout` if it has state (a teacher's answers, a replay buffer). It is called once per micro-batch and
may generate; no gradient flows through it. It adds its cost with `context.count`, and logs with `context.log_ratio`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from studykit.chat import find_turn_ends
from studykit.collate import Batch, make_batch
from studykit.discovery import Room, check_options, flags
from studykit.generation import Completions, Vocabulary
from studykit.generation.cost import Cost
from studykit.losses import Author
from studykit.teacher import OpenTeacher

ROLLOUTS = Room("studykit.rollouts", kind="rollout")

MaxNewTokens = Annotated[int, Field(ge=1)]


@dataclass
class RolloutContext:
    """What a rollout may use.

    Attributes:
        student: the model in training, without data-parallel wrappers.
        teacher: the open teacher, or None.
        tokenizer: the student's tokenizer.
        generator: the only source of randomness, on the CPU; its state is part of a checkpoint.
        max_length: maximum number of tokens of a sequence, prompt and answer together.
        progress: share of the stage's optimizer steps that are done, in [0, 1].
        validation_loss: returns the student's mean cross-entropy on the stage's validation data, nats per token.
        cost: counters to add to: `generated_tokens` drawn from any model, `scored_tokens` read by the teacher for it.
        metrics: sum and count since the last log, by name; their ratio is logged.
        answers: number of answers `generated` in the stage, and how many of them `ended` or were `cut` at the limit.
    """

    student: nn.Module
    teacher: OpenTeacher | None
    tokenizer: Any
    generator: torch.Generator
    max_length: int = 2048
    progress: float = 0.0
    validation_loss: Callable[[], float] | None = None
    cost: Cost = field(default_factory=Cost)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)

    @property
    def required_teacher(self) -> OpenTeacher:
        """The teacher, for rollouts that need one.

        Raises:
            ValueError: the run has no teacher.
        """
        if self.teacher is None:
            raise ValueError("this rollout needs a teacher, and none was given: name one in the specification")
        return self.teacher

    @property
    def vocabulary(self) -> Vocabulary:
        """End tokens, padding and size of the student's vocabulary."""
        return Vocabulary.of(self.student, self.tokenizer)

    def with_data_end(self, completions: Completions) -> list[list[int]]:
        """Return a teacher's answers up to the first token that ends one, with the end that the data's answers have.

        A teacher with the student's tokens may have another chat template, and end its answers otherwise.
        """
        ends = find_turn_ends(self.tokenizer)
        answers = []
        for ids, ended in zip(completions.without_end, completions.ended, strict=True):
            content = list(takewhile(lambda token: token not in ends.ids, ids))
            answers.append([*content, ends.last] if ended or len(content) < len(ids) else content)
        return answers

    def limit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[int]:
        """Return the maximum number of new tokens for each prompt, so that no sequence is longer than `max_length`."""
        return [max(0, min(max_new_tokens, self.max_length - len(prompt))) for prompt in prompts]

    def join(
        self,
        prompts: Sequence[list[int]],
        answers: Sequence[Sequence[int]],
        author: Author | Sequence[Author],
    ) -> Batch:
        """Return prompts, each followed by its generated answer, as a batch on the student's device.

        Only the answers are supervised.

        Args:
            prompts: token ids.
            answers: token ids, as generated.
            author: who wrote the answers: one for all rows, or one for each.
        """
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        masks = [[False] * len(p) + [True] * len(a) for p, a in zip(prompts, answers, strict=True)]
        authors = [author] * len(rows) if isinstance(author, Author) else author
        batch = make_batch(rows, masks, self.tokenizer.pad_token_id)
        return replace(batch, author=torch.tensor(authors)).to(next(self.student.parameters()).device)

    def count(self, **tokens: float) -> None:
        """Add to the cost."""
        self.cost.add(**tokens)

    def count_completions(self, completions: Completions) -> None:
        """Count the answers and add the tokens that were drawn to the cost; log the share of answers that ended, and
        their mean length."""
        lengths, ended = [len(tokens) for tokens in completions.tokens], sum(completions.ended)
        self.count(generated_tokens=completions.generated_tokens)
        self.answers.update(generated=len(lengths), ended=ended, cut=len(lengths) - ended)
        self.log_ratio(
            ended=(ended, len(lengths)),
            answer_length=(sum(lengths), len(lengths)),
        )

    def log_ratio(self, **ratios: tuple[float, float]) -> None:
        """Add to the numerator and denominator of ratios that are logged."""
        for name, (numerator, denominator) in ratios.items():
            before = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (before[0] + numerator, before[1] + denominator)

    def draw_uniform(self) -> float:
        """Return a random number in [0, 1)."""
        return float(torch.rand((), generator=self.generator))


class Rollout:
    """Base of rollouts; a function is wrapped in one, and its module may set these flags in capitals.

    Attributes:
        keeps_rows: True if every row is a row of the data, which a cached teacher has stored.
        needs_teacher: True if a teacher takes part in making the sequences.
        needs_validation: True if the stage must name validation data.
        across_tokenizers: True if the teacher may have another tokenizer than the student.
    """

    keeps_rows: bool = False
    needs_teacher: bool = False
    needs_validation: bool = False
    across_tokenizers: bool = False

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the sequences to train on in place of a batch of the data."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the state that belongs into a checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class FunctionRollout(Rollout):
    """A rollout without state, made from a function, its module's flags and its options."""

    def __init__(self, function: Callable[..., Batch], module: ModuleType, options: dict[str, Any]):
        vars(self).update(flags(Rollout, module))
        self._function = partial(function, **options)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Call the function."""
        return self._function(batch, context)


def get_rollout(name: str, /, **options: Any) -> Rollout:
    """Make the rollout of that name.

    Raises:
        InputError: an unknown name or option, with the nearest known one; a value out of range.
    """
    member = ROLLOUTS.member(name)
    check_options("rollout", name, member, options)
    if isinstance(member, type):
        return member(**options)
    return FunctionRollout(member, ROLLOUTS.module(name), options)
