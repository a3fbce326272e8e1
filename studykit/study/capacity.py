"""Refuse before training what a model could not read or generate: token ids and positions."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from studykit.chat import Encoded, encode
from studykit.errors import InputError
from studykit.evaluation import with_each_choice
from studykit.models.limits import Limits, limits_of
from studykit.models.names import ModelRef
from studykit.models.vocabulary import same_vocabulary
from studykit.scorers import any_needs, needs_generation
from studykit.sources import Example
from studykit.training.resolved import ResolvedEvaluation, ResolvedRun, ResolvedStage

_LOG = logging.getLogger(__name__)
_NO_LIMIT = 2**62
_MOST_UNKNOWN, _FEW_UNKNOWN = 0.3, 0.001
"""Shares of unknown tokens above which a run is refused, and a line is logged."""


class Use(NamedTuple):
    """The requirements of one part of a run on a model.

    Attributes:
        where: the part, for messages.
        largest_id: of all token ids.
        largest_in: the example that holds it.
        longest: tokens of the longest sequence, its completion included.
        longest_of: the example that it belongs to.
        setting: what to change where that is too long.
        generates: whether completions are generated.
    """

    where: str
    largest_id: int
    largest_in: str
    longest: int
    longest_of: str
    setting: str
    generates: bool

    @classmethod
    def of(
        cls, where: str, setting: str, examples: Sequence[Example], encoded: Encoded, new_tokens: int | None, most: int
    ) -> "Use":
        """Return what examples require, and the answers of `new_tokens` tokens to them, of at most `most` tokens."""
        lengths = encoded.lengths
        if new_tokens is not None:
            lengths = np.maximum(lengths, np.minimum(encoded.answer_starts() + new_tokens, most))
        ids = [int(encoded.ids_of(i).max()) if encoded.lengths[i] else 0 for i in range(len(encoded))]
        widest, longest = int(np.argmax(ids)), int(lengths.argmax())
        return cls(
            where, ids[widest], examples[widest].id, int(lengths[longest]), examples[longest].id, setting,
            new_tokens is not None,
        )  # fmt: skip


def check_capacity(run: ResolvedRun) -> None:
    """Refuse a run whose data or completions a model cannot take.

    Raises:
        InputError: naming the model, the part of the run, and the setting that would fit.
    """
    _check_vocabulary(run)
    uses = list(_uses(run))
    longest = max(use.longest for use in uses)
    _check(run.student, limits_of(run.student, run.spec.student.random_config, longest), uses)
    for stage, use in zip(run.stages, uses, strict=False):  # the uses of the evaluation come last
        named, teacher = run.teacher_of(stage) or (None, None)
        if named is None or named.endpoint is not None:  # a server knows its limits
            continue
        if teacher is not None and same_vocabulary(run.student.tokenizer, teacher.tokenizer):
            _check(teacher, limits_of(teacher, longest=use.longest), [use._replace(generates=False)])


def _check_vocabulary(run: ResolvedRun) -> None:
    """Refuse answers that the student's tokenizer mostly does not know; log a smaller share of unknown tokens."""
    tokenizer = run.student.tokenizer
    if tokenizer.unk_token_id is None:
        return
    parts = [(f"stage {number}", stage.data.encoded) for number, stage in enumerate(run.stages, 1)]
    parts += [("the evaluation", encode(evaluation.held_out, tokenizer, None)) for evaluation in run.evaluations]
    for where, encoded in parts:
        answers = [encoded.ids_of(index)[encoded.supervised_of(index)] for index in range(len(encoded))]
        share = np.mean(np.concatenate(answers) == tokenizer.unk_token_id)
        text = f"{where}: {share:.1%} of the answers' tokens are {tokenizer.unk_token!r} to the tokenizer of "
        text += f"{run.student.name!r}: it was made for other texts"
        if share > _MOST_UNKNOWN:
            raise InputError(f"{text}; take a model that reads this language")
        if share > _FEW_UNKNOWN:
            _LOG.warning("%s", text)


def _uses(run: ResolvedRun) -> Iterator[Use]:
    for number, stage in enumerate(run.stages, 1):
        yield _use_of_stage(f"stage {number}", stage)
    yield from (use for evaluation in run.evaluations for use in _uses_of_evaluation(evaluation, run.student))


def _uses_of_evaluation(evaluation: ResolvedEvaluation, student: ModelRef) -> Iterator[Use]:
    encoded, spec = encode(evaluation.held_out, student.tokenizer, None), evaluation.spec
    new_tokens = spec.max_new_tokens if needs_generation(spec.scorers) else None
    yield Use.of("the evaluation", "evaluation.max_new_tokens", evaluation.held_out, encoded, new_tokens, _NO_LIMIT)
    if any_needs(spec.scorers, "choices"):
        read = with_each_choice(evaluation.held_out)
        encoded = encode(read, student.tokenizer, None)
        yield Use.of("a choice of the evaluation", "the choices", read, encoded, None, _NO_LIMIT)


def _use_of_stage(where: str, stage: ResolvedStage) -> Use:
    data = stage.data
    return Use.of(where, "max_length", data.examples, data.encoded, stage.max_new_tokens, stage.spec.max_length)


def _check(model: ModelRef, limits: Limits, uses: Sequence[Use]) -> None:
    for use in uses:
        if use.largest_id >= limits.embedding_rows:
            token = model.tokenizer.convert_ids_to_tokens(use.largest_id)
            raise InputError(
                f"{use.where}, example {use.largest_in!r}: the tokenizer of {model.name!r} gives token id "
                f"{use.largest_id:,} ({token!r}), and the model's embedding has {limits.embedding_rows:,} rows: call "
                "model.resize_token_embeddings(len(tokenizer)) and save model and tokenizer again"
            )
        length = f"{use.where}, example {use.longest_of!r}: a sequence may have {use.longest:,} tokens"
        if limits.positions is not None and use.longest > limits.positions:
            raise InputError(
                f"{length}, and {model.name!r} has a table of {limits.positions:,} positions: lower {use.setting}, or "
                "leave out longer examples"
            )
        if limits.usual_positions is not None and use.longest > limits.usual_positions:
            _LOG.warning(
                "%s, and %s is made for %s positions: it reads longer ones, but often badly; lower %s, or leave out "
                "longer examples",
                *(length, model.name, f"{limits.usual_positions:,}", use.setting),
            )
    if not limits.has_kv_cache and any(use.generates for use in uses):
        _LOG.warning(
            "%s generates without a key-value cache: for every new token the whole text is read again, slowly",
            model.name,
        )
    pad = model.tokenizer.pad_token_id
    if pad is not None and pad >= limits.embedding_rows:
        raise InputError(
            f"the padding token of {model.name!r} has id {pad:,}, and the model's embedding has "
            f"{limits.embedding_rows:,} rows: call model.resize_token_embeddings(len(tokenizer)) and save again"
        )
