"""The data of one stage: drawn by its budget, where a method says so reduced by what models prefer, and tokenised."""

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from studykit.chat import Encoded, check, encode, tokenizer_hash
from studykit.methods import Recipe, get_method
from studykit.samplers import SAMPLERS, asks_models, draw, kept_count, ranking
from studykit.sources import Example, content_hash, load_examples
from studykit.spec import Budget, Data, Stage, Teacher

_WHOLE_POOL_FROM = 16
"""A budget of at least 1/16 of the pool has the whole pool tokenised, once for the whole study."""

_KEPT: dict[str, "StageData"] = {}
_KEPT_STAGES = 4


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        examples: in the order in which they were drawn.
        encoded: the same as token sequences of the student's.
        manifest: what was drawn, by counts and content hashes; plain JSON data.
        chosen: sha256 of the examples, where models took part in the choice.
    """

    examples: list[Example]
    encoded: Encoded
    manifest: dict[str, Any]
    chosen: str | None = None


def stage_data(stage: Stage, tokenizer: Any, results_root: Path, teacher: Teacher | None = None) -> StageData:
    """Return the examples of a stage, their token sequences, and their manifest.

    The last few answers are kept: a specification is checked with the data that its training then uses.

    Args:
        stage: names source, budget and method.
        tokenizer: the student's.
        results_root: where runs named as models lie.
        teacher: asked by methods that keep a part of the budget only.

    Raises:
        InputError: a source, budget, model or example that cannot be used.
    """
    recipe = get_method(stage.method, **stage.method_options)
    asked = [
        recipe.choose,
        recipe.choose_share,
        recipe.choose_reference,
        teacher.model_dump() if teacher and recipe.choose else None,
    ]
    key = f"{stage.data.model_dump_json()} {stage.max_length} {asked} {tokenizer_hash(tokenizer)}"
    if key not in _KEPT or stage.data.sha256 is None:
        _KEPT[key] = _stage_data(stage, tokenizer, results_root, recipe, teacher)
        for old in list(_KEPT)[:-_KEPT_STAGES]:
            del _KEPT[old]
    return replace(_KEPT[key], manifest=dict(_KEPT[key].manifest))


def validation_data(data: Data, tokenizer: Any, max_length: int, results_root: Path) -> Encoded:
    """Return the token sequences that are looked at during training.

    Raises:
        InputError: a source, budget or example that cannot be used.
    """
    pool = load_examples(data.source, data.split, data.options)
    drawn = draw(pool, data.budget, results_root=results_root)
    return encode([pool[i] for i in drawn.indices], tokenizer, max_length)


def _stage_data(stage: Stage, tokenizer: Any, results_root: Path, recipe: Recipe, teacher: Teacher | None) -> StageData:
    pool = load_examples(stage.data.source, stage.data.split, stage.data.options)
    budget = stage.data.budget
    if budget.tokens is not None or (budget.examples or len(pool)) * _WHOLE_POOL_FROM >= len(pool):
        whole = encode(pool, tokenizer, None)
        drawn = draw(pool, budget, whole.response_tokens, results_root)
        encoded = whole.take(drawn.indices)
        examples = [pool[i] for i in drawn.indices]
        check(examples, encoded, stage.max_length)
    else:
        drawn = draw(pool, budget, results_root=results_root)
        examples = [pool[i] for i in drawn.indices]
        encoded = encode(examples, tokenizer, stage.max_length)
    manifest = drawn.manifest | {"response_tokens": int(encoded.response_tokens.sum())}
    if recipe.choose:
        places = _choice(examples, recipe, teacher, budget.seed, results_root)
        if "teacher" in inspect.signature(SAMPLERS.module(recipe.choose).rank).parameters:
            manifest["scored_tokens"] = int(encoded.lengths.sum())
        examples, encoded = [examples[i] for i in places], encoded.take(places)
        manifest["kept_by"] = recipe.choose
        manifest["kept_examples"], manifest["kept_sha256"] = len(examples), content_hash(examples)
    chosen: Any = None
    if recipe.choose or asks_models(budget.sampler):
        chosen = manifest.get("kept_sha256", manifest["examples_sha256"])
    return StageData(examples, encoded, manifest, chosen)


def _choice(
    examples: list[Example], recipe: Recipe, teacher: Teacher | None, seed: int, results_root: Path
) -> np.ndarray:
    """Return which of the drawn examples a method keeps, in their order."""
    offered = {
        "teacher": None if teacher is None else teacher.name,
        "reference": recipe.choose_reference,
        "share": recipe.choose_share,
    }
    taken = inspect.signature(SAMPLERS.module(recipe.choose).rank).parameters
    options = {name: value for name, value in offered.items() if name in taken}
    order = ranking(examples, Budget(sampler=recipe.choose, options=options, seed=seed), results_root)
    return np.sort(order[: kept_count(len(examples), recipe.choose_share)])
