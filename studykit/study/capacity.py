"""Refuse before training what a model could not read or generate: token ids, positions, and generation itself."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from studykit.chat import Encoded, encode
from studykit.discovery import options_of
from studykit.errors import InputError
from studykit.models.limits import Limits, limits_of
from studykit.models.names import ModelRef
from studykit.models.vocabulary import same_vocabulary
from studykit.rollouts import ROLLOUTS
from studykit.scorers import needs_generation
from studykit.training.resolved import ResolvedEvaluation, ResolvedRun, ResolvedStage


class Use(NamedTuple):
    """The requirements of one part of a run on a model.

    Attributes:
        where: the part, for messages.
        largest_id: of all token ids.
        longest: tokens of the longest sequence, its completion included.
        setting: what to change where that is too long.
        generates: whether completions are generated.
    """

    where: str
    largest_id: int
    longest: int
    setting: str
    generates: bool


def check_capacity(run: ResolvedRun) -> None:
    """Refuse a run whose data or completions a model cannot take.

    Raises:
        InputError: naming the model, the part of the run, and the setting that would fit.
    """
    uses = list(_uses(run))
    _check(run.student, limits_of(run.student, run.spec.student.random_config), uses)
    for stage, use in zip(run.stages, uses, strict=False):  # the uses of the evaluation come last
        _, teacher = run.teacher_of(stage) or (None, None)
        if teacher is not None and same_vocabulary(run.student.tokenizer, teacher.tokenizer):
            _check(teacher, limits_of(teacher), [use._replace(generates=False)])


def _uses(run: ResolvedRun) -> Iterator[Use]:
    for number, stage in enumerate(run.stages, 1):
        yield _use_of_stage(f"stage {number}", stage)
    yield from (_use_of_evaluation(evaluation, run.student) for evaluation in run.evaluations)


def _use_of_evaluation(evaluation: ResolvedEvaluation, student: ModelRef) -> Use:
    encoded, longest = encode(evaluation.held_out, student.tokenizer, None), 0
    generates = needs_generation(evaluation.spec.scorers)
    if generates:
        longest = int(encoded.answer_starts().max()) + evaluation.spec.max_new_tokens
    longest = max(longest, int(encoded.lengths.max()))
    return Use("the evaluation", _largest_id(encoded), longest, "evaluation.max_new_tokens", generates)


def _use_of_stage(where: str, stage: ResolvedStage) -> Use:
    encoded, recipe = stage.data.encoded, stage.recipe
    longest, option = int(encoded.lengths.max()), options_of(ROLLOUTS.member(recipe.rollout)).get("max_new_tokens")
    if option is not None:  # a rollout that generates
        new_tokens = (recipe.rollout_options or {}).get(option.name, option.default)
        longest = max(longest, min(stage.spec.max_length, int(encoded.answer_starts().max()) + new_tokens))
    return Use(where, _largest_id(encoded), longest, "max_length", option is not None)


def _largest_id(encoded: Encoded) -> int:
    return max((int(encoded.ids_of(i).max()) for i in range(len(encoded)) if encoded.lengths[i]), default=0)


def _check(model: ModelRef, limits: Limits, uses: Sequence[Use]) -> None:
    for use in uses:
        if use.largest_id >= limits.embedding_rows:
            token = model.tokenizer.convert_ids_to_tokens(use.largest_id)
            raise InputError(
                f"{use.where}: the tokenizer of {model.name!r} gives token id {use.largest_id:,} ({token!r}), and the "
                f"model's embedding has {limits.embedding_rows:,} rows: call "
                "model.resize_token_embeddings(len(tokenizer)) and save model and tokenizer again"
            )
        if limits.learned_positions is not None and use.longest > limits.learned_positions:
            raise InputError(
                f"{use.where}: a sequence may have {use.longest:,} tokens, and {model.name!r} has learned "
                f"{limits.learned_positions:,} positions: lower {use.setting}, or leave out longer examples"
            )
        if use.generates and not limits.has_kv_cache:
            raise InputError(
                f"{use.where}: {model.name!r} takes no key-value cache, so it cannot generate here: choose a model "
                "with attention, or a method on the data's own answers and scorers=['nll']"
            )
    pad = model.tokenizer.pad_token_id
    if pad is not None and pad >= limits.embedding_rows:
        raise InputError(
            f"the padding token of {model.name!r} has id {pad:,}, and the model's embedding has "
            f"{limits.embedding_rows:,} rows: call model.resize_token_embeddings(len(tokenizer)) and save again"
        )
