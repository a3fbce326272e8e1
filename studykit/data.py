"""The data of a run: a source's pool, the prefix of it that a budget draws, and its token sequences.

    inputs = Inputs("results")
    inputs.pool(spec.stages[0].data).sha256
    inputs.stage_data(spec.stages[0], student).encoded

No method is known here: where one trains on a part of its budget, the part is described by a `Selection`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from studykit.chat import Encoded, Turns, as_sequences, check, check_all_answers, encode
from studykit.models.names import ModelRef, Models
from studykit.samplers import draw, models_of, select
from studykit.sources import Example, content_hash, load_examples
from studykit.spec import Budget, Data, Stage

_WHOLE_POOL_FROM = 16
"""A budget of at least 1/16 of the pool has the whole pool tokenised, once for the whole study."""

_REMEMBERED = 4
"""Pools, and data of stages, that `Inputs` holds at a time."""

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """All examples of a source's split, and the sha256 of their content."""

    examples: list[Example]
    sha256: str


@dataclass(frozen=True)
class Selection:
    """The part of a budget's examples that a method trains on.

    Attributes:
        sampler: ranks the examples.
        keep_fraction: the fraction of the ranking that is trained on, in (0, 1].
        models: by role, `teacher` and `reference`; the sampler uses those that it has roles for.
    """

    sampler: str
    keep_fraction: float
    models: Mapping[str, ModelRef]


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        examples: one for each sequence, in the order in which they were drawn; with `turns="each"` a conversation of
            several answers is several of them.
        encoded: the same as the student's token sequences.
        manifest: what was drawn, by counts and content hashes; plain JSON data.
        selected_sha256: of the examples, where models took part in the selection.
    """

    examples: list[Example]
    encoded: Encoded
    manifest: dict[str, Any]
    selected_sha256: str | None = None


class Inputs:
    """Models and data by name, each looked up once for specifications that are pinned together.

    The last few pools and stages' data are held in memory for as long as the object lives, so that arms which share
    their data share one copy.

    Args:
        root: the results folder, whose finished runs can be named as models.
    """

    def __init__(self, root: str | Path = "results"):
        self.models = Models(root)
        self._pools: dict[str, Pool] = {}
        self._stages: dict[str, StageData] = {}

    def pool(self, data: Data) -> Pool:
        """Return the examples that a budget is drawn from.

        Raises:
            InputError: a source or file that cannot be used.
        """

        def load() -> Pool:
            examples = load_examples(data.source, data.split, data.options)
            return Pool(examples, content_hash(examples))

        return _remember(self._pools, _pool_key(data), load)

    def stage_data(self, stage: Stage, student: ModelRef, selection: Selection | None = None) -> StageData:
        """Return the examples of a stage, their token sequences, and their manifest.

        Args:
            stage: gives source, budget and maximum length.
            student: its tokenizer makes the token sequences.
            selection: the part of the budget that the stage's method trains on; None for all of it.

        Raises:
            InputError: a source, budget, model or example that cannot be used.
        """
        key = f"{_pool_key(stage.data)} {stage.data.budget} {stage.turns} {stage.max_length} {student} {selection}"

        def make() -> StageData:
            data = self._drawn(stage, student.tokenizer)
            return data if selection is None else _selected(data, selection, stage.data.budget.seed)

        return _remember(self._stages, key, make)

    def validation_data(self, data: Data, student: ModelRef, stage: Stage) -> Encoded:
        """Return the token sequences that a method computes the student's loss on during training.

        Args:
            data: the validation data of a stage.
            student: its tokenizer makes the token sequences.
            stage: gives the maximum length, and which answers of a conversation count.

        Raises:
            InputError: a source, budget or example that cannot be used.
        """
        pool, tokenizer = self.pool(data).examples, student.tokenizer
        counts = None if data.budget.tokens is None else _encode_by_turns(pool, tokenizer, stage.turns)[3]
        drawn = draw(pool, data.budget, counts, self.models)
        examples, encoded, _, _ = _encode_by_turns([pool[i] for i in drawn.indices], tokenizer, stage.turns)
        check(examples, encoded, stage.max_length)
        return encoded

    def _drawn(self, stage: Stage, tokenizer: Any) -> StageData:
        """Return what the budget draws from the pool."""
        pool, budget = self.pool(stage.data).examples, stage.data.budget
        if budget.tokens is not None or (budget.examples or len(pool)) * _WHOLE_POOL_FROM >= len(pool):
            whole, encoded, bounds, counts = _encode_by_turns(pool, tokenizer, stage.turns)
            drawn = draw(pool, budget, counts, self.models)
            rows = np.concatenate([np.arange(int(bounds[i]), int(bounds[i + 1])) for i in drawn.indices])
            examples, encoded = [whole[i] for i in rows], encoded.take(rows)
        else:
            drawn = draw(pool, budget, models=self.models)
            examples, encoded, _, _ = _encode_by_turns([pool[i] for i in drawn.indices], tokenizer, stage.turns)
        check(examples, encoded, stage.max_length)
        if stage.turns == "all":
            check_all_answers(examples, encoded)
        _tell_left_out(stage, encoded)
        manifest: dict[str, Any] = drawn.manifest | {
            "response_tokens": int(encoded.response_tokens.sum()),
            "sequences": len(encoded),
            "answers": int(encoded.answers.sum()),
            "answers_left_out": int(encoded.left_out.sum()),
        }
        sha256 = manifest["examples_sha256"] if models_of(budget.sampler) else None
        return StageData(examples, encoded, manifest, sha256)


def _encode_by_turns(
    examples: list[Example], tokenizer: Any, turns: Turns | None
) -> tuple[list[Example], Encoded, np.ndarray, np.ndarray]:
    """Return the sequences of examples, their tokens, where those of each example begin, and its supervised tokens.

    Returns:
        Sequences and tokens of the same length; int64 [n + 1] and int64 [n] for n examples.
    """
    sequences, owners = as_sequences(examples, turns)
    encoded = encode(sequences, tokenizer, None)
    counts = np.bincount(owners, weights=encoded.response_tokens, minlength=len(examples)).astype(np.int64)
    return sequences, encoded, np.searchsorted(owners, np.arange(len(examples) + 1)), counts


def _tell_left_out(stage: Stage, encoded: Encoded) -> None:
    """Say how many answers are not trained on, where `turns` does not choose that."""
    if fewer := int((encoded.left_out > 0).sum()):
        _LOG.warning(
            "source %r: of %s conversations with several answers the last alone is trained on, and %s answers are left "
            "out, since the chat template renders them otherwise when further turns follow; turns='each' trains on "
            "each in a separate sequence, turns='last' says that this is meant",
            stage.data.source,
            f"{fewer:,}",
            f"{int(encoded.left_out.sum()):,}",
        )


def _selected(drawn: StageData, selection: Selection, seed: int) -> StageData:
    """Return the part of the drawn examples that is trained on, in the order of the draw."""
    indices = select(drawn.examples, selection.sampler, selection.keep_fraction, seed, selection.models)
    examples = [drawn.examples[i] for i in indices]
    manifest = dict(drawn.manifest)
    if "teacher" in models_of(selection.sampler):
        manifest["scored_tokens"] = int(drawn.encoded.lengths.sum())
    manifest |= {
        "kept_by": selection.sampler,
        "kept_examples": len(examples),
        "kept_sha256": content_hash(examples),
    }
    return StageData(examples, drawn.encoded.take(indices), manifest, manifest["kept_sha256"])


def _pool_key(data: Data) -> str:
    return data.model_copy(update={"budget": Budget(), "sha256": None}).model_dump_json()


def _remember(results: dict[str, T], key: str, make: Callable[[], T]) -> T:
    """Return the result under a key, computing it where it is missing; only the newest few are held."""
    if key not in results:
        results[key] = make()
        for oldest in list(results)[:-_REMEMBERED]:
            del results[oldest]
    return results[key]
