"""Drawing a token: temperature, nucleus (`top_p`), and one random number per row from one generator on the CPU."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from studykit.discovery import Option, check_options

Temperature = Annotated[float, Field(ge=0)]
TopP = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: only the smallest set of likeliest tokens whose probabilities sum to at least `top_p` is drawn from.

    Raises:
        InputError: a value out of range.
    """

    temperature: Temperature = 1.0
    top_p: TopP = 1.0

    def __post_init__(self) -> None:
        ranges = {"temperature": Option("temperature", Temperature, 1.0), "top_p": Option("top_p", TopP, 1.0)}
        check_options("generation", "sampling", ranges, vars(self))

    def distribution(self, logits: Tensor) -> Tensor:
        """Return the probabilities at this temperature, before `top_p` cuts them, float [..., V]."""
        if self.temperature == 0:
            return nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
        return (logits / self.temperature).softmax(dim=-1)

    def draw(self, logits: Tensor, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
        """Draw one token per row of logits [B, V], int64 [B]; the other arguments are those of `draw`."""
        if self.temperature == 0:
            _draw_uniform(logits, generator, rows)  # so that the generator's state does not depend on the temperature
            return logits.argmax(dim=-1)
        return draw(self.distribution(logits), self.top_p, generator, rows)


def draw(probabilities: Tensor, top_p: float, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution at one random number per row, int64 [B].

    The random numbers come from the CPU whatever the device, so that a checkpoint of the generator is enough to resume.

    Args:
        probabilities: float [B, V]; they need not sum to 1.
        top_p: only the smallest set of likeliest tokens with at least this share of the sum is drawn from.
        generator: the source of the random numbers, on the CPU.
        rows: bool [R] on the CPU, which B of the R rows of the beginning are left. A number is drawn for all R, so
            that a row's number does not depend on which others are left. None: all rows are left.

    >>> draw(torch.tensor([[0.0, 1.0], [0.3, 0.7]]), 0.5, torch.Generator().manual_seed(0))
    tensor([1, 1])
    """
    uniform = _draw_uniform(probabilities, generator, rows)
    ordered, ids = probabilities, None
    if top_p < 1:
        ordered, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = ordered.double().cumsum(dim=-1)
    total = cumulative[:, -1:]
    if top_p < 1:
        nucleus = cumulative - ordered < top_p * total
        total = cumulative.gather(1, (nucleus.sum(dim=-1, keepdim=True) - 1).clamp(min=0))
    position = torch.searchsorted(cumulative, uniform * total, right=True)
    # A number is at most 1 - 2**-53, and its product with the total is less than the total. But the probabilities of
    # a diverged student are nan, which sort after every number: the position would be past the vocabulary.
    position = position.clamp(max=ordered.shape[1] - 1)
    return (position if ids is None else ids.gather(1, position))[:, 0]


def _draw_uniform(like: Tensor, generator: torch.Generator, rows: Tensor | None) -> Tensor:
    """Return random numbers in [0, 1), float64 [B, 1], on the device of `like` [B, V]; see `draw` for `rows`."""
    numbers = torch.rand(len(like) if rows is None else len(rows), 1, generator=generator, dtype=torch.float64)
    return (numbers if rows is None else numbers[rows]).to(like.device)
