"""Budgets as objects: a prefix of one ranking of the pool, with a manifest.

A sampler is a function `name(pool, generator, *, option=default) -> int64 [len(pool)]` in a file of the same name: it
returns a permutation of all examples. One that ranks by models names their roles in `MODELS`, as ("teacher",
"reference"), and takes after the generator the scores of each: float64 [len(pool)], the mean log-probability per
response token of every example. A budget names these models in options called like the roles.

A budget is a prefix of the ranking, so that with one seed every smaller budget is contained in every larger one:

    drawn = draw(pool, Budget(examples=500, sampler="stratified", seed=0), response_tokens)
    [pool[i] for i in drawn.indices]
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studykit.discovery import Room, check_options, options_of
from studykit.errors import InputError
from studykit.likelihood import mean_logp
from studykit.models.names import ModelRef, Models
from studykit.sources import Example, content_hash
from studykit.spec import Budget

SAMPLERS = Room("studykit.samplers", kind="sampler")


@dataclass(frozen=True)
class Draw:
    """The examples of one budget.

    Attributes:
        indices: int64 [n], positions in the pool, in rank order.
        examples: those at the positions.
        manifest: what was drawn, by counts and content hashes; plain JSON data.
    """

    indices: np.ndarray
    examples: list[Example]
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
        models: looks up the models that the budget names; None knows no runs but those under `results`.

    Raises:
        InputError: a budget larger than the pool, or too small for a single example; an unknown sampler.
    """
    models, options = models or Models(), budget.options or {}
    named = {role: models.find(options[role]) for role in models_of(budget.sampler) if options.get(role)}
    order = ranking(pool, budget, named)
    lengths = None if response_tokens is None else np.asarray(response_tokens)[order]
    count = _prefix(budget, len(pool), lengths)
    indices = order[:count]
    examples = [pool[i] for i in indices]
    manifest = {
        "sampler": budget.sampler,
        "seed": budget.seed,
        "pool_examples": len(pool),
        "examples": int(count),
        "response_tokens": None if lengths is None else int(lengths[:count].sum()),
        "by_source": dict(sorted(Counter(example.source for example in examples).items())),
        "budget_by_annotator": dict(sorted(Counter(example.annotator for example in examples).items())),
        "examples_sha256": content_hash(examples),
        "first_ids": [example.id for example in examples[:5]],
    }
    return Draw(indices, examples, manifest)


def models_of(sampler: str) -> tuple[str, ...]:
    """Return the roles of the models that a sampler ranks by; with any, its ranking is part of what a run is."""
    return getattr(SAMPLERS.module(sampler), "MODELS", ())


def ranking(pool: Sequence[Example], budget: Budget, models: Mapping[str, ModelRef] | None = None) -> np.ndarray:
    """Return the permutation of the pool whose prefixes are the nested budgets, int64 [len(pool)].

    Args:
        pool: all examples.
        budget: names sampler and seed, and the sampler's options.
        models: by role, those that the sampler ranks by.

    Raises:
        InputError: an unknown sampler or option, or a model that is needed and not named.
    """
    rank, roles, models = SAMPLERS.member(budget.sampler), models_of(budget.sampler), models or {}
    options = {name: value for name, value in (budget.options or {}).items() if name not in roles}
    check_options("sampler", budget.sampler, rank, options)
    for role in roles:
        if role not in models:
            raise InputError(f"sampler {budget.sampler!r} needs a {role}: name a model in its options, as {role}='...'")
    scores = [mean_logp(models[role], pool) for role in roles]
    order = rank(pool, np.random.default_rng(budget.seed), *scores, **options)
    if not np.array_equal(np.sort(order), np.arange(len(pool))):
        raise ValueError(f"sampler {budget.sampler!r} must return a permutation of all {len(pool)} examples")
    return order


def select(
    examples: Sequence[Example], sampler: str, fraction: float, seed: int, models: Mapping[str, ModelRef]
) -> np.ndarray:
    """Return the fraction of the examples that a sampler ranks first, as positions in their order, int64 [n].

    Args:
        examples: those that one budget has drawn.
        sampler: by name.
        fraction: in (0, 1]; at least one example is selected.
        seed: of the ranking.
        models: by role; the sampler uses those that it has roles for.

    Raises:
        InputError: an unknown sampler, or a model that is needed and not named.
    """
    options = {"share": fraction} if "share" in options_of(SAMPLERS.member(sampler)) else None
    order = ranking(examples, Budget(sampler=sampler, options=options, seed=seed), models)
    return np.sort(order[: count_of(len(examples), fraction)])


def count_of(pool: int, share: float) -> int:
    """Return the number of examples in a share of the pool, at least one."""
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
