"""Budgets as objects: a prefix of one ranking of the pool, with a manifest.

A sampler is a file with `rank(pool, generator, *, option=default) -> permutation`. An option annotated `ModelRef` is a
model: specifications give its name, `rank` gets what the name stands for. A budget is a prefix of the ranking, so that
with one seed every smaller budget is contained in every larger one:

    chosen = draw(pool, Budget(examples=500, sampler="stratified", seed=0), content_lengths)
    [pool[i] for i in chosen.indices]
"""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import numpy as np

from studykit.discovery import Room, check_options
from studykit.errors import InputError
from studykit.models.names import ModelRef, Models
from studykit.sources import Example, content_hash
from studykit.spec import Budget

SAMPLERS = Room("studykit.samplers", kind="sampler")


@dataclass(frozen=True)
class Draw:
    """The examples of one budget.

    Attributes:
        indices: int64 [n], positions in the pool, in rank order.
        manifest: what was drawn, by counts and content hashes; plain JSON data.
    """

    indices: np.ndarray
    manifest: dict[str, Any]


def draw(
    pool: Sequence[Example],
    budget: Budget,
    response_tokens: np.ndarray | None = None,
    models: Models | None = None,
) -> Draw:
    """Return the prefix of the ranking that fits the budget.

    Args:
        pool: all examples of the split.
        budget: how many examples or response tokens, ranked how, from which seed.
        response_tokens: int [len(pool)], supervised tokens per example; only a budget in tokens needs them.
        models: looks up the models that the sampler's options name; None knows no runs but those under `results`.

    Raises:
        InputError: a budget larger than the pool, or too small for a single example; an unknown sampler.
    """
    order = ranking(pool, budget, _with_models(budget, models or Models()))
    lengths = None if response_tokens is None else np.asarray(response_tokens)[order]
    count = _prefix(budget, len(pool), lengths)
    indices = order[:count]
    manifest = {
        "sampler": budget.sampler,
        "seed": budget.seed,
        "pool_examples": len(pool),
        "examples": int(count),
        "response_tokens": None if lengths is None else int(lengths[:count].sum()),
        "by_source": dict(sorted(Counter(pool[i].source for i in indices).items())),
        "by_annotator": dict(sorted(Counter(pool[i].annotator for i in indices).items())),
        "examples_sha256": content_hash([pool[i] for i in indices]),
        "first_ids": [pool[i].id for i in indices[:5]],
    }
    return Draw(indices, manifest)


def model_options(sampler: str) -> list[str]:
    """Return which options of a sampler are models; with any, what it selects is part of what a run is.

    >>> model_options("difference"), model_options("uniform")
    (['teacher', 'reference'], [])
    """
    hints = get_type_hints(SAMPLERS.module(sampler).rank)
    return [name for name, hint in hints.items() if ModelRef in (hint, *get_args(hint))]


def accepted_options(sampler: str, offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered options that a sampler has."""
    accepted = inspect.signature(SAMPLERS.module(sampler).rank).parameters
    return {name: value for name, value in offered.items() if name in accepted}


def ranking(pool: Sequence[Example], budget: Budget, options: Mapping[str, Any] | None = None) -> np.ndarray:
    """Return the permutation of the pool whose prefixes are the nested budgets, int64 [len(pool)].

    Args:
        pool: all examples.
        budget: names the sampler, and the seed.
        options: the sampler's, with models instead of their names; None for none.

    Raises:
        InputError: an unknown sampler or option, or a model that is needed and not named.
    """
    rank, options = SAMPLERS.module(budget.sampler).rank, dict(options or {})
    check_options("sampler", budget.sampler, rank, options)
    order = rank(pool, np.random.default_rng(budget.seed), **options)
    if not np.array_equal(np.sort(order), np.arange(len(pool))):
        raise ValueError(f"sampler {budget.sampler!r} must return a permutation of all {len(pool)} examples")
    return order


def _with_models(budget: Budget, models: Models) -> dict[str, Any]:
    """Return a budget's options with models instead of their names."""
    options = dict(budget.options or {})
    for name in model_options(budget.sampler):
        options[name] = models.find(options[name]) if options.get(name) else None
    return options


def kept_count(pool: int, share: float) -> int:
    """Return how many examples a share of the pool is, at least one.

    Raises:
        InputError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], received {share}")
    return max(1, round(share * pool))


def _prefix(budget: Budget, available: int, lengths: np.ndarray | None) -> int:
    if budget.tokens is not None:
        if lengths is None:
            raise ValueError("a budget in response tokens needs response_tokens, the tokens of every example")
        total = int(lengths.sum())
        if budget.tokens > total:
            raise InputError(f"budget of {budget.tokens:,} response tokens is larger than the pool's {total:,}")
        count = int(np.searchsorted(np.cumsum(lengths), budget.tokens, side="right"))
        if count == 0:
            raise InputError(
                f"budget of {budget.tokens:,} response tokens is empty: the first example has {lengths[0]}"
            )
        return count
    count = available if budget.examples is None else budget.examples
    if count > available:
        raise InputError(f"budget of {count:,} examples is larger than the pool of {available:,}")
    return count
