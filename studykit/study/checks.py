"""What is refused before a run starts: one function per check, each raising an `InputError` of one line.

They look at names, options, tokenizers and data. No model is loaded.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studykit.chat import Encoded, encode
from studykit.data import StageData
from studykit.errors import InputError, unknown
from studykit.methods import Recipe
from studykit.models.loading import check_attention
from studykit.models.names import ModelRef
from studykit.models.placement import check_placement
from studykit.models.vocabulary import same_vocabulary, shared_vocabulary
from studykit.samplers import SAMPLERS, models_of
from studykit.scorers import SCORERS, any_needs, name_of
from studykit.sources import Example
from studykit.spec import Budget, Evaluation, RunSpec, Stage, Teacher, repeated_evaluation
from studykit.training.ranks import are_several

_NEEDS_SETTINGS = {
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "reduce_lr_on_plateau",
    "greedy",
}


def schedules() -> list[str]:
    """Return the learning-rate schedules of transformers that need nothing but a name."""
    from transformers import SchedulerType  # imports half of transformers

    return [schedule.value for schedule in SchedulerType if schedule.value not in _NEEDS_SETTINGS]


def check_single_process() -> None:
    """Refuse a start under torchrun or `accelerate launch` of what only one process can do."""
    if are_several():
        raise InputError(
            "torchrun and accelerate launch start single runs, `-m studykit run SPEC.json`: start this without them, "
            "and set STUDYKIT_PROCESSES for runs by several processes"
        )


def check_names(spec: RunSpec) -> None:
    """Refuse unknown samplers, schedules, attention implementations and scorers."""
    for stage in spec.stages:
        for data, _ in stage.parts:
            SAMPLERS.module(data.budget.sampler)
        check_best_model(stage)
        if stage.lr_scheduler_type not in schedules():
            raise unknown("lr_scheduler_type", stage.lr_scheduler_type, schedules())
    for model in (spec.student, spec.teacher, *(stage.teacher for stage in spec.stages)):
        check_attention(model.attn_implementation if model else None)
    for scorer in (scorer for evaluation in spec.evaluation for scorer in evaluation.scorers):
        SCORERS.module(name_of(scorer))


def check_best_model(stage: Stage) -> None:
    """Refuse a score by which no weights can be chosen, and settings of one where the last weights are kept."""
    for name in ("eval_steps", "metric_for_best_model"):
        if getattr(stage, name) is not None and not stage.load_best_model_at_end:
            raise InputError(f"{name} changes nothing without load_best_model_at_end=true: set it, or leave {name} out")
    if (name := stage.metric_for_best_model) is None:
        return
    SCORERS.check(name)
    if any_needs([name], "teacher") or any_needs([name], "choices"):
        raise InputError(f"metric_for_best_model {name!r} needs a teacher or choices: take loss, or another scorer")


def check_evaluations(evaluations: Sequence[Evaluation]) -> None:
    """Refuse two evaluations with one content, and what `check_draw` refuses."""
    if repeated := repeated_evaluation(evaluations):
        raise InputError(repeated)
    for evaluation in evaluations:
        check_draw(evaluation)


def check_draw(evaluation: Evaluation) -> None:
    """Refuse a draw of held-out items that is no number of examples, or that a model would take part in."""
    budget = evaluation.data.budget
    if budget.tokens is not None:
        raise InputError("evaluation.data.budget counts examples: give examples instead of tokens")
    if evaluation.items is not None and budget != Budget():
        raise InputError("evaluation: give items (the first of the split) or data.budget (a draw), not both")
    if models_of(budget.sampler):
        raise InputError(
            f"evaluation.data.budget: sampler {budget.sampler!r} ranks by a model, and held-out items are the same for "
            "all: draw them with uniform or stratified"
        )
    if budget.examples is None and budget != Budget():
        raise InputError("evaluation.data.budget draws nothing without examples: give their number")


def check_teacher_is_named(spec: RunSpec, users: Sequence[tuple[Stage, Recipe]]) -> None:
    """Refuse methods that need a teacher in a specification without one."""
    needing = [stage.method for stage, recipe in users if recipe.needs_teacher and stage.teacher is None]
    if needing and spec.teacher is None:
        raise InputError(
            f"method {', '.join(needing)} needs a teacher: name one, such as teacher={{'name': 'lexicon/teacher-a'}}"
        )


def check_tokenizers(teacher: Teacher, recipes: Sequence[Recipe], student_tokenizer: Any, tokenizer: Any) -> None:
    """Refuse a teacher with another tokenizer where probabilities are compared token by token."""
    across = not teacher.is_cached and all(recipe.across_tokenizers for recipe in recipes)
    if not across and not same_vocabulary(student_tokenizer, tokenizer):
        shared_vocabulary(student_tokenizer, tokenizer)  # its error names tokens that differ


def check_engine(teacher: Teacher, model: ModelRef) -> None:
    """Refuse vLLM for a teacher that is a folder of adapters: it would read the base model's weights alone."""
    if teacher.engine is not None and model.base is not None:
        raise InputError(
            f"engine {teacher.engine!r} reads weights from disk, and teacher {teacher.name!r} is a folder of adapters: "
            "name the merged model, or leave engine out"
        )


def check_weights_fit(teacher: Teacher, model: ModelRef) -> None:
    """Refuse device maps and quantisation that do not go with the rest, or with what is installed."""
    check_placement(teacher)
    if teacher.quantization is not None and model.base is not None:
        raise InputError(
            f"teacher {teacher.name!r} is a folder of adapters, which cannot be merged into quantised weights: name "
            "the merged model, or leave quantization out"
        )


_ENDPOINT_REFUSALS = (
    (lambda recipe: recipe.parts[1].needs_teacher, "has the teacher generate"),
    (lambda recipe: recipe.needs_live_teacher, "trains on sequences that are made during training"),
    (lambda recipe: recipe.parts[0].needs_shared_categories, "needs the full distribution"),
    (lambda recipe: recipe.select is not None, "selects examples by the teacher's likelihood"),
    (lambda recipe: recipe.teacher_pruned is not None, "prunes the teacher"),
)
"""What a method does that a server which gives distributions over the data cannot serve."""


def check_endpoint(stage: Stage, recipe: Recipe, teacher: Teacher) -> None:
    """Refuse a teacher with an endpoint where a method needs more of it than distributions over the data."""
    for applies, reason in _ENDPOINT_REFUSALS if teacher.endpoint is not None and recipe.needs_teacher else ():
        if applies(recipe):
            raise InputError(
                f"method {stage.method!r} {reason}, and an endpoint gives the likeliest tokens along the data alone: "
                "leave teacher.endpoint out, for a teacher on this machine, or take kd"
            )


_CACHED_REFUSALS = (
    (
        lambda recipe, loss, teacher: loss.needs_shared_categories,
        "loss {loss!r} needs the full distribution, and the teacher is folded to {cache}: set it to null for a live "
        "teacher",
    ),
    (
        lambda recipe, loss, teacher: recipe.needs_live_teacher,
        "it trains on sequences that are generated during training, which a cached teacher ({cache}) does not know: "
        "set it to null for a live teacher",
    ),
    (
        lambda recipe, loss, teacher: teacher.samples is not None and loss.needs_teacher and not loss.takes_samples,
        "loss {loss!r} is not right on average with a sampled teacher ({cache}): take top_k, or forward_kl",
    ),
    (
        lambda recipe, loss, teacher: teacher.samples is not None and recipe.temperature != 1,
        "a sampled teacher ({cache}) was sampled at temperature 1: set the method's temperature to 1",
    ),
)
"""When a cached teacher cannot serve a recipe, and why; the first reason that holds is given."""


def check_cached(stage: Stage, recipe: Recipe, teacher: Teacher) -> None:
    """Refuse a cached teacher where a method needs the live one."""
    if not teacher.is_cached or not recipe.trains_with_teacher:
        return
    loss, _ = recipe.parts
    cache = f"top_k={teacher.top_k}" if teacher.samples is None else f"samples={teacher.samples}"
    for applies, reason in _CACHED_REFUSALS:
        if applies(recipe, loss, teacher):
            raise InputError(f"method {stage.method!r}: {reason.format(loss=recipe.loss, cache=cache)}")


def check_one_pruning(shares: set[float | None]) -> None:
    """Refuse stages whose methods prune the one teacher differently."""
    if len(shares) > 1:
        raise InputError(f"the stages need teachers pruned by {shares}: set the teacher's `pruned` yourself")


def check_validation_is_named(stage: Stage) -> None:
    """Refuse a stage without validation data that computes a validation score during training."""
    if stage.validation is None:
        what = "load_best_model_at_end" if stage.load_best_model_at_end else f"method {stage.method!r}"
        raise InputError(
            f"{what} computes a validation score during training: name validation data in the stage, "
            "such as validation={'source': ..., 'split': 'validation', 'budget': {'examples': 100}}; in "
            "training_options the source may be left out"
        )


def check_prompts(stage: Stage, recipe: Recipe, examples: Sequence[Example]) -> None:
    """Refuse raw texts where a method generates answers to prompts."""
    _, rollout = recipe.parts
    if not rollout.keeps_rows and any(example.is_text for example in examples):
        raise InputError(
            f"method {stage.method!r} generates answers to prompts, and the data holds raw texts: take `sft`"
        )


def check_same_answers(
    data: tuple[list[Example], Encoded], recipe: Recipe, student_tokenizer: Any, teacher_tokenizer: Any
) -> None:
    """Refuse examples in which a teacher with another tokenizer and chat template would read other answers."""
    if not recipe.trains_with_teacher or same_vocabulary(student_tokenizer, teacher_tokenizer):
        return
    examples, encoded = data
    read = encode(examples, teacher_tokenizer, None).answers
    different = np.flatnonzero(read != encoded.answers)
    if len(different) and recipe.parts[0].needs_teacher:
        first = int(different[0])
        raise InputError(
            f"example {examples[first].id!r}: the student's chat template has {encoded.answers[first]} "
            f"answers trained on and the teacher's {read[first]}, so they cannot be compared: take turns='each' or "
            "turns='last'"
        )


def check_selection(stage: Stage, data: StageData) -> None:
    """Refuse a pinned specification for which models select other examples now."""
    if stage.selected_sha256 not in (None, data.selected_sha256):
        raise InputError(
            f"method {stage.method!r}: models select other examples now than when this specification was pinned; "
            "bring the models back, or remove `selected_sha256`"
        )


def check_code(pinned: Mapping[str, str] | None, code: Mapping[str, str] | None, what: str) -> None:
    """Refuse a pinned specification whose code has changed since."""
    if pinned in (None, code):
        return
    changed = sorted(name for name in {*pinned, *(code or {})} if pinned.get(name) != (code or {}).get(name))
    raise InputError(
        f"{what}: the code of {', '.join(changed)} is not what this specification was pinned to: bring back the old "
        "one, or remove `code` to run with the new one"
    )


def check_sha256(pinned: str | None, sha256: str, what: str) -> None:
    """Refuse a pinned specification whose models or data have changed since."""
    if pinned not in (None, sha256):
        raise InputError(
            f"{what} is not what this specification was pinned to (sha256 {pinned[:12]} then, {sha256[:12]} now): "
            "bring back the old one, or remove `sha256` to run with the new one"
        )
