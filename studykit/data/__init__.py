"""The data of a run: a source's pool, what filters leave of it, the prefix that a budget draws, and its tokens.

    inputs = Inputs("results")
    inputs.pool(spec.stages[0].data).sha256
    inputs.stage_data(spec.stages[0], student).encoded

No method is known here: where one trains on a part of its budget, the part is described by a `Selection`.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from studykit.chat import Encoded, Turns, check, check_all_answers
from studykit.data.filters import NOTHING, Excluded, Kept, apply_filters
from studykit.data.mixture import mix
from studykit.data.overlap import Found, HeldOutIndex
from studykit.data.pool_index import open_pool
from studykit.data.sequences import Sequences, count_tokens
from studykit.data.stage_data import StageData
from studykit.data.writing import AnswerWriter
from studykit.errors import InputError
from studykit.models.names import ModelRef, Models
from studykit.samplers import draw, models_of, select
from studykit.sources import Example, content_hash, files_of, load_examples
from studykit.spec import Budget, Data, Stage

_WHOLE_POOL_FROM = 16
"""A budget of at least 1/16 of a pool in memory has the whole pool tokenised, once for the whole study."""

_REMEMBERED = 4
"""Pools, and data of stages, that `Inputs` holds at a time."""

T = TypeVar("T")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """All examples of a source's split, before filters and after what is applied to them.

    Attributes:
        examples: in the source's order; those of large files stay on disk until they are looked at.
        sha256: of their content.
        written: where models wrote the answers: how, how many, and which filters dropped some.
    """

    examples: Sequence[Example]
    sha256: str
    written: dict[str, Any] | None = None


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
        self._kept: dict[str, Kept] = {}
        self._stages: dict[str, StageData] = {}
        self._found: dict[str, Found] = {}

    def pool(self, data: Data) -> Pool:
        """Return all examples of a source's split, after what is applied to them.

        Raises:
            InputError: a source or file that cannot be used.
        """

        def load() -> Pool:
            pool = read()
            if not data.acting_on("examples"):
                return pool
            examples = data.apply_to("examples", pool.examples)
            return replace(pool, examples=examples, sha256=content_hash(examples))

        def read() -> Pool:
            if (files := files_of(data.source, data.split, data.options)) is not None:
                return Pool(*open_pool(data.source, data.split, data.options, files))
            writer = AnswerWriter(self.models, self._prompts)
            examples = load_examples(data.source, data.split, data.options, writer)
            return Pool(examples, content_hash(examples), writer.manifest)

        return _remember(self._pools, _pool_key(data), load)

    def kept(self, data: Data, student: ModelRef, turns: Turns | None = None, excluded: Excluded = NOTHING) -> Kept:
        """Return the examples that a budget is drawn from: those that the filters leave, without what is excluded.

        Args:
            data: the source, and what to leave out.
            student: counts tokens.
            turns: of the stage: in which sequences they are counted.
            excluded: examples that are not drawn.

        Raises:
            InputError: a source or file that cannot be used, empty answers, or a budget of more examples than are left.
        """

        def apply() -> Kept:
            kept = apply_filters(data.filters, self.pool(data).examples, student.tokenizer, turns, excluded)
            if not data.decontaminate:
                return kept
            return kept.take("decontaminate", ~HeldOutIndex(excluded.held_out).search(kept.examples).examples)

        key = _key(_pool_key(data), data.filters, data.decontaminate, student, turns, hash(excluded))
        kept = _remember(self._kept, key, apply)
        _check_budget(data, self.pool(data), kept)
        return kept

    def _prompts(self, data: Data, model: ModelRef) -> list[Example]:
        """Return the examples that a budget draws; without filters, they need no answer."""
        pool = self.pool(data).examples if data.filters is None else self.kept(data, model).examples
        counts = None if data.budget.tokens is None else count_tokens(pool, model.tokenizer, None).response_tokens
        return draw(pool, data.budget, counts, self.models).examples

    def stage_data(
        self,
        stage: Stage,
        student: ModelRef,
        selection: Selection | Sequence[Selection | None] | None = None,
        excluded: Excluded = NOTHING,
    ) -> StageData:
        """Return the examples of a stage, their token sequences, and their manifest; of a mixture, those of all parts.

        Args:
            stage: gives source, budget and maximum length.
            student: its tokenizer makes the token sequences.
            selection: the part of each budget that the stage's method trains on, or one for each part of a mixture;
                None for all of it.
            excluded: examples that are not drawn.

        Raises:
            InputError: a source, budget, model or example that cannot be used.
        """
        stages = [stage.model_copy(update={"data": data}) for data, _ in stage.parts]
        selections = selection if isinstance(selection, Sequence) else [selection] * len(stages)
        parts = [self._part(*pair, student, excluded) for pair in zip(stages, selections, strict=True)]
        return mix(parts, [weight for _, weight in stage.parts], stage.mix_by or "examples") if stage.mix else parts[0]

    def _part(self, stage: Stage, selection: Selection | None, student: ModelRef, excluded: Excluded) -> StageData:
        """Return what is drawn from the source of a stage's `data`."""
        data = stage.data
        drawn_from = (_pool_key(data), data.filters, data.decontaminate, data.budget)
        key = _key(*drawn_from, stage.turns, stage.max_length, student, selection, hash(excluded))

        def make() -> StageData:
            drawn = self._drawn(stage, student, excluded)
            return drawn if selection is None else _selected(drawn, selection, data.budget.seed)

        return _remember(self._stages, key, make)

    def validation_data(
        self, data: Data, student: ModelRef, stage: Stage, excluded: Excluded = NOTHING
    ) -> tuple[list[Example], Encoded]:
        """Return examples that a method computes the student's loss on during training, and their token sequences.

        Args:
            data: the validation data of a stage.
            student: its tokenizer makes the token sequences.
            stage: gives the maximum length, and which answers of a conversation count.
            excluded: examples that are not drawn.

        Raises:
            InputError: a source, budget or example that cannot be used.
        """
        pool, tokenizer = self.kept(data, student, stage.turns, excluded).examples, student.tokenizer
        by_tokens = data.budget.tokens is not None
        counts = count_tokens(pool, tokenizer, stage.turns).response_tokens if by_tokens else None
        drawn = draw(pool, data.budget, counts, self.models)
        sequences = Sequences.of(drawn.examples, tokenizer, stage.turns)
        check(sequences.examples, sequences.encoded, stage.max_length)
        return sequences.examples, sequences.encoded

    def find_held_out(self, held_out: Sequence[Example], examples: Sequence[Example], use: str) -> Found:
        """Return which of the held-out items are among examples; items that are there are logged, once.

        Args:
            held_out: items of an evaluation.
            examples: of stages.
            use: of the examples, for the message, such as "trained on".
        """

        def search() -> Found:
            found = HeldOutIndex(held_out).search(examples)
            if found.items.any():
                counts = ", ".join(f"{count:,} {kind}" for kind, count in found.counts().items() if count)
                _LOG.warning("of %s held-out items, %s are %s too", f"{len(held_out):,}", counts, use)
            return found

        return _remember(self._found, f"{content_hash(held_out)} {content_hash(examples)} {use}", search)

    def _drawn(self, stage: Stage, student: ModelRef, excluded: Excluded) -> StageData:
        """Return what the budget draws from the pool that the filters leave."""
        kept = self.kept(stage.data, student, stage.turns, excluded)
        pool, counts, budget, tokenizer = kept.examples, kept.counts, stage.data.budget, student.tokenizer
        is_large = isinstance(pool, list) and (budget.examples or len(pool)) * _WHOLE_POOL_FROM >= len(pool)
        if counts is None and (is_large or budget.tokens is not None):
            counts = count_tokens(pool, tokenizer, stage.turns)
        drawn = draw(pool, budget, None if counts is None else counts.response_tokens, self.models)
        if isinstance(counts, Sequences):
            sequences = counts.take(drawn.indices)
        else:
            sequences = Sequences.of(drawn.examples, tokenizer, stage.turns)
        examples, encoded = sequences.examples, sequences.encoded
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
        if (written := self.pool(stage.data).written) is not None:
            manifest["written"] = written
        if kept.dropped:
            manifest["dropped"] = kept.dropped
        sha256 = manifest["examples_sha256"] if models_of(budget.sampler) else None
        return StageData(examples, encoded, manifest, sha256, tuple(drawn.examples))


def _tell_left_out(stage: Stage, encoded: Encoded) -> None:
    """Say how many answers are not trained on, where `turns` does not choose that."""
    if fewer := int((encoded.left_out > 0).sum()):
        _LOG.warning(
            "source %r: of %s conversations with several answers the last alone is trained on, and %s answers are left "
            "out, since the chat template renders them otherwise when further turns follow; turns='each' trains on "
            "each in a separate sequence, turns='last' silences this warning",
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
    return StageData(examples, drawn.encoded.take(indices), manifest, manifest["kept_sha256"], drawn.drawn)


def _pool_key(data: Data) -> str:
    whole = {"filters": None, "decontaminate": None, "decontaminated_sha256": None, "budget": Budget(), "sha256": None}
    return data.model_copy(update=whole).model_dump_json()


def _key(*parts: object) -> str:
    """Return the text that tells what is remembered apart: parts hold mappings, which cannot be hashed."""
    return repr(parts)


def _check_budget(data: Data, pool: Pool, kept: Kept) -> None:
    """Refuse a budget of more examples than there are."""
    left = len(kept.examples)
    if left and (data.budget.examples or 0) <= left:
        return
    source = f"(source {data.source!r}, split {data.split!r})"
    filtered = "" if not kept.dropped else f"; {kept.describe()} of {len(pool.examples):,}"
    if pool.written is not None and pool.written["dropped"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in pool.written["dropped"].items())
        filtered += f"; {pool.written['answers'] - pool.written['kept']:,} of {pool.written['answers']:,} answers were "
        filtered += f"dropped ({counts})"
    if left == 0:
        raise InputError(f"no example is left {source}{filtered}")
    raise InputError(
        f"budget of {data.budget.examples:,} examples is larger than the pool of {left:,} {source}{filtered}"
    )


def _remember(results: dict[str, T], key: str, make: Callable[[], T]) -> T:
    """Return the result under a key, computing it where it is missing; only the newest few are held."""
    if key not in results:
        results[key] = make()
        for oldest in list(results)[:-_REMEMBERED]:
            del results[oldest]
    return results[key]
