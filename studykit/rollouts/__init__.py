"""Which sequence is trained on, one way per file: the data's own answer, the teacher's, the student's, or a mixture.

A rollout is a function `name(batch, context, *, option=default) -> Batch` in a file of the same name. It is asked once
per micro-batch and may generate; no gradient flows through it. What it cost is added to `context.cost`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from studykit.discovery import Room, check_options
from studykit.teacher import Batch, OpenTeacher

ROLLOUTS = Room("studykit.rollouts", kind="rollout")


@dataclass
class RolloutContext:
    """What a rollout may use.

    Attributes:
        student: the model being trained, as the trainer holds it.
        teacher: the open teacher, or None.
        tokenizer: the student's tokenizer.
        generator: the only source of randomness; its state is checkpointed.
        progress: share of the stage's optimizer steps done, in [0, 1].
        cost: counters to add to, such as `generated_tokens`.
    """

    student: nn.Module
    teacher: OpenTeacher | None
    tokenizer: Any
    generator: torch.Generator
    progress: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)


Rollout = Callable[[Batch, RolloutContext], Batch]


def get_rollout(name: str, **options: Any) -> Rollout:
    """Make the rollout of that name.

    Raises:
        InputError: an unknown name or option, with the nearest known one.
    """
    made = ROLLOUTS.member(name)
    check_options("rollout", name, made, options)
    return partial(made, **options)
