"""How a token is drawn: temperature, nucleus, and one random number per row from one generator on the CPU."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from studykit.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: only the likeliest tokens that together reach this mass are drawn.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"sampling temperature must be at least 0, received {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must lie in (0, 1], received {self.top_p}")

    def distribution(self, logits: Tensor) -> Tensor:
        """Return what is drawn from, before `top_p`: probabilities, float [..., V]."""
        if self.temperature == 0:
            return nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
        return (logits / self.temperature).softmax(dim=-1)

    def draw(self, logits: Tensor, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
        """Draw one token per row of logits [B, V], int64 [B]; arguments and random numbers are those of `draw`."""
        if self.temperature == 0:
            _numbers(logits, generator, rows)  # so that what is drawn next does not depend on the temperature
            return logits.argmax(dim=-1)
        return draw(self.distribution(logits), self.top_p, generator, rows)


def draw(probabilities: Tensor, top_p: float, generator: torch.Generator, rows: Tensor | None = None) -> Tensor:
    """Draw one token per row by its place in the cumulative distribution: one random number per row, int64 [B].

    The randomness comes from the CPU whatever the device, so that a checkpoint of the generator is enough to resume.

    Args:
        probabilities: float [B, V]; they need not sum to 1.
        top_p: only the likeliest tokens that together reach this share of the mass are drawn.
        generator: gives the random numbers, on the CPU.
        rows: bool [R] on the CPU, which B of all rows these are. All R get a number, so that a row draws the same
            whoever is left beside it. None: all of them.

    >>> draw(torch.tensor([[0.0, 1.0], [0.3, 0.7]]), 0.5, torch.Generator().manual_seed(0))
    tensor([1, 1])
    """
    uniform = _numbers(probabilities, generator, rows)
    mass, ids = probabilities, None
    if top_p < 1:
        mass, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    cumulative = mass.double().cumsum(dim=-1)
    kept = cumulative[:, -1:]
    if top_p < 1:
        within = cumulative - mass < top_p * kept
        kept = cumulative.gather(1, (within.sum(dim=-1, keepdim=True) - 1).clamp(min=0))
    place = torch.searchsorted(cumulative, uniform * kept, right=True)
    # A number is at most 1 - 2**-53, which times any mass is less than it. But what a student that has diverged says is
    # no number, and must not name a token that there is not.
    place = place.clamp(max=mass.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place))[:, 0]


def _numbers(like: Tensor, generator: torch.Generator, rows: Tensor | None) -> Tensor:
    """Return random numbers in [0, 1), float64 [B, 1], on the device of what they are for."""
    numbers = torch.rand(len(like) if rows is None else len(rows), 1, generator=generator, dtype=torch.float64)
    return (numbers if rows is None else numbers[rows]).to(like.device)
