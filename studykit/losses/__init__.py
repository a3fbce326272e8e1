"""Divergences, one per file. A loss sees log-probabilities at supervised positions and returns one value per position.

A loss is a function `name(x: LossInputs, *, option=default) -> Tensor[N]` in a file of the same name, or a class
derived from `Loss` where it has state (a schedule, a learned temperature):

    loss = get_loss("jsd", beta=0.1)
    values = loss.per_token(inputs)          # float32 [N], nats

Its categories are the whole vocabulary, or a teacher's top-k tokens and one tail category for the rest; no loss knows
which. Reduction, masking, chunking and temperature belong to `studykit.head`. The annotation of an option says its
type and range (`Annotated[float, Field(ge=0, le=1)]`), and `get_loss` refuses any other value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from studykit.discovery import Room, check_options, flags

LOSSES = Room("studykit.losses", kind="loss")


class Author(IntEnum):
    """Who wrote a supervised token."""

    DATA = 0
    TEACHER = 1
    STUDENT = 2


LOG_FLOOR = -1e5
"""Replaces log 0: finite, so that 0 * log 0 is 0, and below every log-probability of logits within ±4e4."""


@dataclass(frozen=True)
class LossInputs:
    """The inputs of a loss at N supervised positions.

    Attributes:
        student_logp: float [N, C], log-probabilities (each row's exponentials sum to 1), with gradient.
        teacher_logp: float [N, C] without gradient, or None without a teacher.
        target: int64 [N] in [0, C), the category of the label.
        progress: share of the stage's optimizer steps done, in [0, 1].
        sequence: int64 [N], the sequence that each position belongs to, in order; None for a single one.
        author: int64 [N], the `Author` of each token; None where all are the data's.

    C is the vocabulary size V, or k + 1 for a folded top-k teacher, whose last category is the rest of the mass.
    """

    student_logp: Tensor
    teacher_logp: Tensor | None
    target: Tensor
    progress: float = 0.0
    sequence: Tensor | None = None
    author: Tensor | None = None

    @property
    def teacher(self) -> Tensor:
        """The teacher's log-probabilities, for losses that require them.

        Raises:
            ValueError: the run has no teacher.
        """
        if self.teacher_logp is None:
            raise ValueError("this loss compares with a teacher, and none was given: name one in the specification")
        return self.teacher_logp


class Loss:
    """Base of losses with state; a stateless loss is a plain function, wrapped in a `FunctionLoss`.

    The bool attributes are flags: a class sets them, a file with a function sets them in capitals (`COUPLES_ROWS`).

    Attributes:
        needs_teacher: False for losses on the label alone.
        couples_rows: True when the value at one position depends on other positions, which then stay in one chunk.
        needs_shared_categories: True when column c must be the same token in all rows, unlike a folded teacher's.
        across_tokenizers: True when columns are compared by rank, so that the teacher may have another tokenizer.
        takes_samples: True when the teacher's probabilities enter linearly, so that sampled ones are unbiased.
        closed_form: True when `value_and_grad` is implemented; otherwise autograd differentiates `per_token`.
        learning_rate: of the loss's `parameters()`; None means the student's.
    """

    needs_teacher: bool = True
    couples_rows: bool = False
    needs_shared_categories: bool = False
    across_tokenizers: bool = False
    takes_samples: bool = False
    closed_form: bool = False
    learning_rate: float | None = None

    def per_token(self, x: LossInputs) -> Tensor:
        """Return the loss at every position, float32 [N], in nats unless the loss documents another unit."""
        raise NotImplementedError

    def value_and_grad(self, x: LossInputs) -> tuple[Tensor, Tensor]:
        """Return the loss at every position [N] and its derivative in `student_logp` [N, C], in closed form.

        The derivative is partial: each log-probability is a free variable, without the softmax.
        """
        raise NotImplementedError

    def step(self, mean_loss: float, progress: float) -> None:
        """Advance the state, once per optimizer step, the same on every rank. Stateless losses do nothing."""

    def metrics(self) -> dict[str, float]:
        """Return the part of the state that is logged, by name."""
        return {}

    def parameters(self) -> list[Tensor]:
        """Return the loss's learned parameters; the optimizer trains them with the student's."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class FunctionLoss(Loss):
    """A stateless loss made from a function and its options.

    Its module may set the flags of `Loss` in capitals, and define `value_and_grad` with the same options.
    """

    def __init__(self, function: Callable[..., Tensor], module: ModuleType, options: dict[str, Any]):
        vars(self).update(flags(Loss, module))
        self._per_token = partial(function, **options)
        closed_form = getattr(module, "value_and_grad", None)
        self.closed_form = closed_form is not None
        self._value_and_grad = None if closed_form is None else partial(closed_form, **options)

    def per_token(self, x: LossInputs) -> Tensor:
        """Call the function."""
        return self._per_token(x)

    def value_and_grad(self, x: LossInputs) -> tuple[Tensor, Tensor]:
        """Call the module's closed form."""
        return super().value_and_grad(x) if self._value_and_grad is None else self._value_and_grad(x)


def get_loss(name: str, /, **options: Any) -> Loss:
    """Make the loss of that name.

    Args:
        name: the file name of a loss in this package.
        options: keyword options of that loss.

    Raises:
        InputError: an unknown name or option, with the nearest known one; a value outside its type or range.

    Example:
        >>> get_loss("forward_kll")
        Traceback (most recent call last):
        studykit.errors.InputError: unknown loss 'forward_kll'; did you mean 'forward_kl'?
    """
    made = LOSSES.member(name)
    check_options("loss", name, made, options)
    if isinstance(made, type):
        return made(**options)
    return FunctionLoss(made, LOSSES.module(name), options)


def expectation(logp: Tensor, values: Tensor) -> Tensor:
    """Return the row-wise sum of exp(logp) * values, float [N]; categories at the log floor count nothing.

    >>> expectation(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[2.0, 4.0]]))
    tensor([3.])
    """
    return (logp.exp() * values).sum(dim=-1)


def log_mixture(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Return log((1 - share) * exp(first) + share * exp(second)) without leaving log space, float [N, C].

    >>> log_mixture(torch.tensor([0.2]).log(), torch.tensor([0.6]).log(), 0.5).exp()
    tensor([0.4000])
    """
    if share == 0:
        return first
    if share == 1:
        return second
    shares = torch.tensor([1 - share, share], dtype=first.dtype, device=first.device).log()
    return torch.logaddexp(first + shares[0], second + shares[1])
