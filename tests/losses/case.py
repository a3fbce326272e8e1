"""What the files in `cases` are made of, and random inputs to try a loss on.

A case file holds, for the loss of the same name:

    reference(teacher, student, labels, **options)   one value per row, from rows of probabilities: a loop over floats
    CASES = variants({}, {"beta": 0.1}, ...)         options to try, and what the definition promises for them
    CONSTANTS = [({"beta": 0.5}, 0.25), ...]         values worked out by hand for the rows P and Q and label 0

and may hold AT_ZEROS (options at which the reference is compared where the teacher has zeros), SIBLINGS (options at
which it equals another loss), REFUSED (options, and a part of the error message) and CONSTANT_ROWS.
"""

import math
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from studykit.losses import LOG_FLOOR, Loss, LossInputs, get_loss


@dataclass(frozen=True)
class Case:
    """A loss with options, and what its definition promises at q = p."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    zero_value: bool = True
    zero_gradient: bool = True
    differentiable: bool = True
    """False where the definition holds something constant, so that finite differences see another function."""
    nonnegative: bool = True
    """False for a surrogate: its gradient alone has a meaning, and its value goes either way."""
    moves: bool = False
    """True where steps of the schedule or the optimizer change the value."""
    rounding: float = 1e-10
    """How far the value may be from the reference's, as a share."""

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])

    def make(self) -> Loss:
        return get_loss(self.name, **self.options)


def variants(*options: dict[str, Any], **claims: Any) -> list[Case]:
    """Return cases of the loss in whose file this is called; `cases` fills in the name."""
    return [Case("", chosen, **claims) for chosen in options]


ROWS, CATEGORIES = 6, 9


def inputs(seed: int = 0, rows: int = ROWS, categories: int = CATEGORIES) -> tuple[Tensor, Tensor, Tensor]:
    """Return student logits that require a gradient, teacher log-probabilities and labels, float64."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, categories, generator=generator, dtype=torch.float64) * 1.5
    target = torch.randint(categories, (rows,), generator=generator)
    return student.requires_grad_(), teacher.log_softmax(-1), target


def values(loss: Loss, logits: Tensor, teacher_logp: Tensor, target: Tensor, progress: float = 0.0) -> Tensor:
    return loss.per_token(LossInputs(logits.log_softmax(-1), teacher_logp, target, progress))


def with_zeros(teacher_logp: Tensor, zero: Tensor) -> Tensor:
    """Return the teacher with some probabilities set to 0 and the others renormalised."""
    return teacher_logp.masked_fill(zero, -torch.inf).log_softmax(-1).clamp(min=LOG_FLOOR)


# For references, which share no code with the losses: rows of probabilities, p of the teacher and q of the student.

Row = list[float]


def per_row(function):
    """Make a reference of a function of one row (p, q, y)."""

    @wraps(function)
    def rows(teacher: list[Row], student: list[Row], labels: list[int], **options) -> Row:
        return [function(p, q, y, **options) for p, q, y in zip(teacher, student, labels, strict=True)]

    return rows


def kl(a: Row, b: Row) -> float:
    return math.fsum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def normalised(weights: Row) -> Row:
    total = math.fsum(weights)
    return [w / total for w in weights]


def mix(first: Row, second: Row, share: float) -> Row:
    return [(1 - share) * a + share * b for a, b in zip(first, second, strict=True)]


P, Q = [1 / 2, 1 / 4, 1 / 4], [1 / 8, 3 / 4, 1 / 8]
FORWARD = math.log(4) / 2 + math.log(1 / 3) / 4 + math.log(2) / 4
REVERSE = math.log(1 / 4) / 8 + 3 * math.log(3) / 4 + math.log(1 / 2) / 8
