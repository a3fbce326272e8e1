"""The likeliest of the answers to choose from."""

import math
from collections.abc import Sequence

from studykit.errors import InputError
from studykit.scorers import Item


def is_right(item: Item, nll: Sequence[float]) -> bool:
    """Whether the choice with the smallest negative log-likelihood, the first of equal ones, is the reference."""
    return item.choices[min(range(len(nll)), key=nll.__getitem__)].strip() == item.reference.strip()


def probabilities(item: Item) -> list[float]:
    """Return the probability of each choice, given that the answer is one of them."""
    least = min(item.choice_nll)
    odds = [math.exp(least - nll) for nll in item.choice_nll]
    return [value / sum(odds) for value in odds]


def check_choices(item: Item, name: str) -> None:
    """Refuse an item without choices, with equal ones, or whose reference is none of them.

    Raises:
        InputError: naming the item.
    """
    choices, where = [choice.strip() for choice in item.choices], f"scorer {name!r}: item {item.id!r}"
    if len(choices) < 2:
        raise InputError(
            f"{where} has {len(choices)} choices: give `choices` on its line of the file, or evaluation.choices"
        )
    if len(set(choices)) < len(choices):
        raise InputError(f"{where} has the same choice twice")
    if item.reference.strip() not in choices:
        raise InputError(f"{where}: its reference {item.reference!r:.60} is none of its {len(choices)} choices")
