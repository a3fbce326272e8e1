"""Per-item scores on held-out items, one scorer per file.

A scorer is a function `name(item) -> Score` in a file of the same name, with a `METRIC` that tells how its mean
is shown.
A run's metric is the mean of its items' scores by weight, so that an error rate over tokens is one number over all
tokens:

    scores = score_items(items, ("exact_match", "nll"))
    metric("exact_match").label                                          # "exact match (points)"
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from studykit.discovery import Room, flags

SCORERS = Room("studykit.scorers", kind="scorer")


@dataclass(frozen=True)
class Item:
    """One held-out item, answered.

    Attributes:
        id: the example's id.
        prompt: the messages before the answer, as plain text.
        reference: the annotated answer.
        answer: what the student generated, special tokens removed; None if no scorer needs it.
        reference_nll: negative log-likelihood of the reference under the student, summed over its tokens, nats.
        reference_tokens: supervised tokens of the reference, the end token included.
    """

    id: str
    prompt: str
    reference: str
    answer: str | None
    reference_nll: float
    reference_tokens: int


@dataclass(frozen=True)
class Metric:
    """How the mean of a score is shown.

    Attributes:
        title: in words.
        unit: after scaling; "" for none.
        scale: factor from the stored value to the unit, such as 100 from a share to points.
        higher_is_better: the direction.
        digits: decimals in tables.
    """

    title: str
    unit: str
    scale: float
    higher_is_better: bool
    digits: int

    @property
    def label(self) -> str:
        """Return title and unit for an axis.

        >>> Metric("NLL", "nats per token", 1, False, 3).label
        'NLL (nats per token)'
        """
        return f"{self.title} ({self.unit})" if self.unit else self.title


class Scorer:
    """The flags of a scorer; its file sets them in capitals.

    Attributes:
        needs_generation: False where the scorer reads no generated answer.
    """

    needs_generation: bool = True


class Score(NamedTuple):
    """A value and its weight in the mean over items."""

    value: float
    weight: float = 1.0


def metric(name: str) -> Metric:
    """Return how a scorer's metric is shown; a column that is no scorer's is shown as it is."""
    if name in SCORERS.names():
        return SCORERS.module(name).METRIC
    return Metric(name.replace("_", " "), "", 1.0, True, 3)


def score_items(items: Sequence[Item], scorers: Sequence[str]) -> list[dict[str, Score]]:
    """Return the scores of every item by scorer.

    Raises:
        InputError: an unknown scorer.
    """
    functions = {name: SCORERS.member(name) for name in scorers}
    return [{name: score(item) for name, score in functions.items()} for item in items]


def weighted_means(scores: Sequence[dict[str, Score]]) -> dict[str, float]:
    """Return the mean of each scorer over items, by weight; a scorer without any weight is absent.

    >>> weighted_means([{"nll": Score(1.0, 3)}, {"nll": Score(2.0, 1)}])
    {'nll': 1.25}
    """
    means = {}
    for name in scores[0] if scores else ():
        weight = sum(score[name].weight for score in scores)
        if weight:
            means[name] = sum(score[name].value * score[name].weight for score in scores) / weight
    return means


def needs_generation(scorers: Sequence[str]) -> bool:
    """Whether any of the scorers reads a generated answer."""
    return any(flags(Scorer, SCORERS.module(name))["needs_generation"] for name in scorers)
