"""Which sequence is trained on, one way per file: the data's own answer, the teacher's, the student's, or a mixture.

A rollout is a function `name(batch, context, *, option=default) -> Batch` in a file of the same name, or a class
derived from `Rollout` where it keeps state (answers asked for once, a replay buffer). It is asked once per micro-batch
and may generate; no gradient flows through it. What it cost is added to `context.cost`, what is worth watching to
`context.metrics`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from studykit.collate import Batch
from studykit.discovery import Room, check_options, flags
from studykit.generation import Completions, token_settings
from studykit.teacher import OpenTeacher

ROLLOUTS = Room("studykit.rollouts", kind="rollout")


@dataclass
class RolloutContext:
    """What a rollout may use.

    Attributes:
        student: the model being trained, as the trainer holds it.
        teacher: the open teacher, or None.
        tokenizer: the student's tokenizer.
        generator: the only source of randomness, on the CPU; its state is checkpointed.
        max_length: most tokens of a sequence, prompt and answer together.
        progress: share of the stage's optimizer steps done, in [0, 1].
        validation_loss: returns the student's mean cross-entropy on the stage's validation data, nats per token.
        cost: counters to add to: `generated_tokens` drawn from any model, `scored_tokens` read by the teacher for it.
        metrics: sums and counts since the last log, by name; their ratio is logged.
    """

    student: nn.Module
    teacher: OpenTeacher | None
    tokenizer: Any
    generator: torch.Generator
    max_length: int = 2048
    progress: float = 0.0
    validation_loss: Callable[[], float] | None = None
    cost: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def required_teacher(self) -> OpenTeacher:
        """The teacher, for rollouts that cannot do without.

        Raises:
            ValueError: the run has no teacher.
        """
        if self.teacher is None:
            raise ValueError("this rollout asks a teacher, and none was given: name one in the specification")
        return self.teacher

    @property
    def decoding(self) -> dict[str, Any]:
        """What every way to generate with the student's vocabulary needs to know."""
        return token_settings(self.student, self.tokenizer)

    def count(self, **tokens: float) -> None:
        """Add to the cost."""
        for name, number in tokens.items():
            self.cost[name] = self.cost.get(name, 0) + number

    def log_ratio(self, **ratios: tuple[float, float]) -> None:
        """Add sum and count of something to be logged as a ratio."""
        for name, (total, number) in ratios.items():
            before = self.metrics.get(name, (0.0, 0.0))
            self.metrics[name] = (before[0] + total, before[1] + number)

    def chance(self) -> float:
        """Return a random number in [0, 1)."""
        return float(torch.rand((), generator=self.generator))


class Rollout:
    """Base of rollouts with state; a stateless one is a plain function and is wrapped in one.

    Attributes:
        keeps_rows: True where every row is one of the data's, so that a cached teacher knows it.
        needs_teacher: True where a teacher takes part in choosing the sequence.
        needs_validation: True where the stage must name validation data.
        across_tokenizers: True where the teacher may have another tokenizer.
    """

    keeps_rows: bool = False
    needs_teacher: bool = False
    needs_validation: bool = False
    across_tokenizers: bool = False

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Return the sequences to train on instead of a batch of the data's."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a checkpoint must keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class FunctionRollout(Rollout):
    """A stateless rollout made from a function and its options; its module may set the flags in capitals."""

    def __init__(self, function: Callable[..., Batch], module: ModuleType, options: dict[str, Any]):
        vars(self).update(flags(Rollout, module))
        self._function = partial(function, **options)

    def __call__(self, batch: Batch, context: RolloutContext) -> Batch:
        """Call the function."""
        return self._function(batch, context)


def get_rollout(name: str, **options: Any) -> Rollout:
    """Make the rollout of that name.

    Raises:
        InputError: an unknown name or option, with the nearest known one.
    """
    made = ROLLOUTS.member(name)
    check_options("rollout", name, made, options)
    if isinstance(made, type):
        return made(**options)
    return FunctionRollout(made, ROLLOUTS.module(name), options)


def new_token_limits(prompts: Sequence[Sequence[int]], max_new_tokens: int, context: RolloutContext) -> list[int]:
    """Return the most new tokens of each row, so that prompt and answer fit into the stage's `max_length`."""
    return [max(0, min(max_new_tokens, context.max_length - len(prompt))) for prompt in prompts]


def answered(
    batch: Batch, prompts: list[list[int]], answers: Sequence[Sequence[int]], author: int, pad_token_id: int
) -> Batch:
    """Return prompts and generated answers as rows to train on: only the answers are supervised.

    Args:
        batch: gives the device.
        prompts: token ids.
        answers: token ids, as generated.
        author: who wrote them, of `studykit.losses`.
        pad_token_id: fills rows up on the right.
    """
    rows = [prompt + list(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    loss_mask = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return padded(rows, loss_mask, author, pad_token_id, batch.input_ids.device)


def padded(
    rows: Sequence[list[int]], masks: Sequence[list[bool]], author: int, pad_token_id: int, device: Any
) -> Batch:
    """Return rows of token ids, and which of them are supervised, as a batch padded on the right."""
    width = max(len(row) for row in rows)
    lengths = torch.tensor([len(row) for row in rows])[:, None]
    ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows])
    loss_mask = torch.tensor([mask + [False] * (width - len(mask)) for mask in masks])
    mask = (torch.arange(width) < lengths).long()
    authors = torch.full((len(rows),), author, device=device)
    return Batch(ids.to(device), mask.to(device), loss_mask.to(device), author=authors)


def joined(batches: Sequence[Batch], pad_token_id: int) -> Batch:
    """Return the rows of several batches as one."""
    width = max(batch.input_ids.shape[1] for batch in batches)

    def wide(name: str, value: int) -> torch.Tensor:
        parts = [getattr(batch, name) for batch in batches]
        return torch.cat([nn.functional.pad(part, (0, width - part.shape[1]), value=value) for part in parts])

    authors = [b.author if b.author is not None else torch.zeros_like(b.input_ids[:, 0]) for b in batches]
    keys = [key for batch in batches for key in batch.keys] if all(batch.keys for batch in batches) else []
    return Batch(
        wide("input_ids", pad_token_id),
        wide("attention_mask", 0),
        wide("loss_mask", 0),
        keys,
        torch.cat(authors),
    )


def count_answers(context: RolloutContext, answers: Completions) -> None:
    """Add what sampled answers cost, and watch how many end and how long they are."""
    lengths = [len(tokens) for tokens in answers.tokens]
    context.count(generated_tokens=answers.generated)
    context.log_ratio(
        ended=(sum(answers.ended), len(lengths)),
        answer_length=(sum(lengths), len(lengths)),
    )
