"""Scores on held-out items, one scorer per file.

A scorer is a function `name(item, *, option=default) -> Score` in a file of the same name, with a `METRIC` that tells
how its mean is shown. A run's metric is the mean of its items' scores by weight, so that an error rate over tokens is
one number over all tokens:

    items = [...]
    scores = score_items(items, ("exact_match", "nll", {"name": "label", "anywhere": True}))
    metric("exact_match").label                                          # "exact match (points)"

Where the mean of the items is not the metric, the file defines `over_items(items, **options) -> float | None`, which
is; and where not every item can be scored, `check(item, **options)`, which raises an `InputError` before training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from studykit.discovery import Room, check_options, flags
from studykit.errors import InputError

SCORERS = Room("studykit.scorers", kind="scorer")

Named = str | Mapping[str, Any]
"""A scorer by its name, or as {"name": ..., option: value}."""

ANSWERS_CUT = "answers_cut"
"""The metric that counts answers which reached the limit of new tokens before they ended."""


@dataclass(frozen=True)
class Predictions:
    """What the student predicts at each supervised token of the reference, given all tokens before it.

    Attributes:
        confidence: probability of the likeliest token.
        is_right: whether the likeliest token is the reference's.
        is_teachers: whether it is the teacher's likeliest too; None without a teacher.
    """

    confidence: Sequence[float]
    is_right: Sequence[bool]
    is_teachers: Sequence[bool] | None = None


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
        reference_bytes: bytes of the text of the supervised turns, in UTF-8.
        cut: whether the answer reached the limit of new tokens before it ended.
        choices: the answers to choose from; none where neither example nor evaluation names any.
        choice_nll: negative log-likelihood of each choice, as `reference_nll`; none where no scorer needs it.
        choice_tokens: tokens of each choice, the end token included.
        predictions: None where no scorer needs them.
    """

    id: str
    prompt: str
    reference: str
    answer: str | None
    reference_nll: float
    reference_tokens: int
    reference_bytes: int = 0
    cut: bool = False
    choices: tuple[str, ...] = ()
    choice_nll: tuple[float, ...] = ()
    choice_tokens: tuple[int, ...] = ()
    predictions: Predictions | None = None


@dataclass(frozen=True)
class Metric:
    """How the mean of a score is shown.

    Attributes:
        title: in words.
        unit: after scaling; "" for none.
        scale: factor from the stored value to the unit, such as 100 from a share to points.
        higher_is_better: the direction.
        digits: decimals in tables.
        tie: largest difference that does not matter, in the unit; None: ten units of the last decimal.
    """

    title: str
    _: KW_ONLY
    unit: str = ""
    scale: float = 1.0
    higher_is_better: bool
    digits: int
    tie: float | None = None

    @property
    def label(self) -> str:
        """Return title and unit for an axis.

        >>> Metric("NLL", unit="nats per token", higher_is_better=False, digits=3).label
        'NLL (nats per token)'
        """
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def margin(self) -> float:
        """Return the largest difference that does not matter, in the unit.

        >>> Metric("NLL", unit="nats per token", higher_is_better=False, digits=3).margin
        0.01
        """
        return 10.0 ** (1 - self.digits) if self.tie is None else self.tie


class Scorer:
    """The flags of a scorer; its file sets them in capitals.

    Attributes:
        needs_generation: False where the scorer reads no generated answer.
        needs_choices: whether it compares the likelihoods of the choices.
        needs_predictions: whether it reads the student's predictions at the tokens of the reference.
        needs_teacher: whether it compares the student's predictions with those of `evaluation.teacher`.
    """

    needs_generation: bool = True
    needs_choices: bool = False
    needs_predictions: bool = False
    needs_teacher: bool = False


class Score(NamedTuple):
    """A value and its weight in the mean over items."""

    value: float
    weight: float = 1.0


def metric(name: str) -> Metric:
    """Return how a scorer's metric is shown; a column that is no scorer's is shown as it is."""
    if name in SCORERS.names():
        return SCORERS.module(name).METRIC
    return Metric(name.replace("_", " "), higher_is_better=True, digits=3)


def name_of(scorer: Named) -> str:
    """Return a scorer's name, which is also that of its metric.

    Raises:
        InputError: there is none.

    >>> name_of({"name": "label", "anywhere": True})
    'label'
    """
    name = scorer if isinstance(scorer, str) else scorer.get("name")
    if not isinstance(name, str):
        raise InputError(f"a scorer is a name, or {{'name': ..., option: value}}, received {scorer!r:.80}")
    return name


def check_scorers(scorers: Sequence[Named], items: Sequence[Item], has_teacher: bool) -> None:
    """Refuse scorers and options that do not exist, a scorer named twice, and items that one of them cannot score.

    Args:
        scorers: those of an evaluation.
        items: its items, without answers yet.
        has_teacher: whether the evaluation names a teacher.

    Raises:
        InputError: naming the first fault.
    """
    names = [name_of(scorer) for scorer in scorers]
    for name, scorer in zip(names, scorers, strict=True):
        check_options("scorer", name, SCORERS.member(name), _options(scorer))
        if names.count(name) > 1:
            raise InputError(f"scorer {name!r} is named twice: its metric is one column")
        if _flags(name)["needs_teacher"] and not has_teacher:
            raise InputError(f"scorer {name!r} compares with a teacher: name one as evaluation.teacher")
        if check := getattr(SCORERS.module(name), "check", None):
            for item in items:
                check(item, **_options(scorer))


def score_items(items: Sequence[Item], scorers: Sequence[Named]) -> list[dict[str, Score]]:
    """Return the scores of every item by scorer.

    Raises:
        InputError: an unknown scorer.
    """
    functions: dict[str, Callable[[Item], Score]] = {
        name_of(scorer): partial(SCORERS.member(name_of(scorer)), **_options(scorer)) for scorer in scorers
    }
    return [{name: score(item) for name, score in functions.items()} for item in items]


def metrics_of(items: Sequence[Item], scores: Sequence[dict[str, Score]], scorers: Sequence[Named]) -> dict[str, float]:
    """Return a run's metrics: of each scorer the weighted mean over items, or what its `over_items` computes.

    A metric that has no items to be measured on is absent. Where answers were generated, `answers_cut` counts those
    that reached the limit.
    """
    metrics = weighted_means(scores)
    for scorer in scorers:
        over_items = getattr(SCORERS.module(name_of(scorer)), "over_items", None)
        value = over_items(items, **_options(scorer)) if over_items else metrics.get(name_of(scorer))
        metrics |= {} if value is None else {name_of(scorer): value}
    answered = [item.cut for item in items if item.answer is not None]
    return metrics | ({ANSWERS_CUT: sum(answered)} if answered else {})


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


def without_teacher(scorers: Sequence[Named]) -> list[Named]:
    """Return the scorers that compare with no teacher."""
    return [scorer for scorer in scorers if not any_needs([scorer], "teacher")]


def needs_generation(scorers: Sequence[Named]) -> bool:
    """Whether any of the scorers reads a generated answer."""
    return any_needs(scorers, "generation")


def any_needs(scorers: Sequence[Named], what: str) -> bool:
    """Whether any of the scorers needs `generation`, `choices`, `predictions` or a `teacher`."""
    return what in needs_of(scorers)


def needs_of(scorers: Sequence[Named]) -> set[str]:
    """Return what the scorers need of an item: `generation`, `choices`, `predictions`, `teacher`."""
    found = (flag for scorer in scorers for flag, value in _flags(name_of(scorer)).items() if value)
    return {flag.removeprefix("needs_") for flag in found}


def require(package: str) -> Any:
    """Return the module of an optional package.

    Raises:
        InputError: it is not installed; with the extra that has it.
    """
    try:
        return import_module(package)
    except ImportError:
        raise InputError(
            f"this scorer needs the package {package.partition('.')[0]}: pip install 'studykit[scorers]'"
        ) from None


def _options(scorer: Named) -> dict[str, Any]:
    return {} if isinstance(scorer, str) else {key: value for key, value in scorer.items() if key != "name"}


def _flags(name: str) -> dict[str, bool]:
    return flags(Scorer, SCORERS.module(name))
