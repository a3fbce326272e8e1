"""Check a specification against what is there, and fill in the hashes of the models and data it names.

    run = pin(RunSpec.parse(plain), Inputs("results"))
    run.spec, run.run_id

Everything that can be wrong is refused here, in one line, before a model is trained.
"""

import os
from typing import Any

from transformers import SchedulerType

from studykit.data import Inputs, Selection
from studykit.errors import InputError, unknown
from studykit.evaluation import held_out
from studykit.methods import Recipe, get_method
from studykit.models.loading import architecture, check_attention, config_hash
from studykit.models.names import ModelRef
from studykit.models.vocabulary import same_vocabulary, shared_vocabulary
from studykit.samplers import SAMPLERS
from studykit.scorers import SCORERS
from studykit.spec import Data, RunSpec, Stage, Teacher
from studykit.training.resolved import ResolvedRun, ResolvedStage

_WITH_SETTINGS = {
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "reduce_lr_on_plateau",
    "greedy",
}
SCHEDULES = [schedule.value for schedule in SchedulerType if schedule.value not in _WITH_SETTINGS]
"""Learning-rate schedules of transformers that need nothing but a name."""


def pin(spec: RunSpec, inputs: Inputs) -> ResolvedRun:
    """Check everything that a specification names, look it up, and fill in the hashes of models and data.

    A teacher that no stage needs is dropped, so that an SFT arm is the same run beside any teacher.

    Args:
        spec: with or without hashes.
        inputs: looks up models and data; specifications pinned together share one.

    Raises:
        InputError: the first thing that is wrong, in one line.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            "one run is one process on one device: start it without torchrun or accelerate launch, and give a batch "
            "--jobs to use several GPUs"
        )
    recipes = [get_method(stage.method, **stage.method_options) for stage in spec.stages]
    for stage in spec.stages:
        SAMPLERS.module(stage.data.budget.sampler)
        if stage.lr_scheduler_type not in SCHEDULES:
            raise unknown("lr_scheduler_type", stage.lr_scheduler_type, SCHEDULES)
    for model in (spec.student, spec.teacher):
        check_attention(model.attn_implementation if model else None)
    for scorer in spec.evaluation.scorers if spec.evaluation else ():
        SCORERS.module(scorer)
    if any(recipe.needs_teacher for recipe in recipes) and spec.teacher is None:
        names = ", ".join(s.method for s, r in zip(spec.stages, recipes, strict=True) if r.needs_teacher)
        raise InputError(f"method {names} needs a teacher: name one, such as teacher={{'name': 'lexicon/teacher-a'}}")
    student = inputs.models.find(spec.student.name, spec.student.revision)
    tokenizer = student.tokenizer
    teacher, teacher_ref = _pin_teacher(spec, recipes, tokenizer, inputs)
    stages = tuple(
        _pin_stage(stage, recipe, student, teacher_ref, inputs)
        for stage, recipe in zip(spec.stages, recipes, strict=True)
    )
    changes: dict[str, Any] = {
        "student": _pin_student(spec, student),
        "teacher": teacher,
        "stages": tuple(stage.spec for stage in stages),
    }
    items = []
    if spec.evaluation is not None:
        items = held_out(spec.evaluation, inputs.pool(spec.evaluation.data).examples)
        changes["evaluation"] = spec.evaluation.model_copy(update={"data": _pin_data(spec.evaluation.data, inputs)})
    return ResolvedRun(spec.model_copy(update=changes), student, teacher_ref, stages, items)


def _pin_teacher(
    spec: RunSpec, recipes: list[Recipe], tokenizer: Any, inputs: Inputs
) -> tuple[Teacher | None, ModelRef | None]:
    """Check that every method gets the kind of teacher it needs; a teacher that nobody asks is dropped."""
    teacher = spec.teacher
    if teacher is None or not any(recipe.needs_teacher for recipe in recipes):
        return None, None
    model = inputs.models.find(teacher.name, teacher.revision)
    same = same_vocabulary(tokenizer, model.tokenizer)
    for stage, recipe in zip(spec.stages, recipes, strict=True):
        if teacher.is_cached and recipe.trains_with_teacher:
            _check_cached(stage.method, recipe, teacher)
        if not same and (teacher.is_cached or not recipe.across_tokenizers):
            shared_vocabulary(tokenizer, model.tokenizer)  # says what differs
    shares = {recipe.teacher_pruned for recipe in recipes if recipe.needs_teacher}
    if teacher.pruned is None and shares != {None}:
        if len(shares) > 1:
            raise InputError(f"the stages ask for teachers pruned by {shares}: set the teacher's `pruned` yourself")
        teacher = teacher.model_copy(update={"pruned": shares.pop()})
    return _pinned(teacher, model.sha256, f"teacher {teacher.name!r}"), model


def _check_cached(method: str, recipe: Recipe, teacher: Teacher) -> None:
    """Refuse a cached teacher where the live one is needed."""
    loss, _ = recipe.parts
    kept = f"top_k={teacher.top_k}" if teacher.samples is None else f"samples={teacher.samples}"
    if loss.needs_shared_categories:
        raise InputError(
            f"method {method!r}: loss {recipe.loss!r} needs the full distribution, and the teacher is folded to "
            f"{kept}: set it to null for a live teacher"
        )
    if recipe.needs_live_teacher:
        raise InputError(
            f"method {method!r} trains on sequences that are made during training, which a cached teacher ({kept}) "
            "does not know: set it to null for a live teacher"
        )
    if teacher.samples is not None and loss.needs_teacher and not loss.takes_samples:
        raise InputError(
            f"method {method!r}: loss {recipe.loss!r} is not right on average with a sampled teacher ({kept}): take "
            "top_k, or forward_kl"
        )
    if teacher.samples is not None and recipe.temperature != 1:
        raise InputError(f"method {method!r}: a sampled teacher ({kept}) was sampled at temperature 1; set it to 1")


def _pin_stage(
    stage: Stage, recipe: Recipe, student: ModelRef, teacher: ModelRef | None, inputs: Inputs
) -> ResolvedStage:
    changes: dict[str, Any] = {"data": _pin_data(stage.data, inputs), "validation": None}
    validation, (_, rollout) = None, recipe.parts
    if rollout.needs_validation:
        if stage.validation is None:
            raise InputError(
                f"method {stage.method!r} looks at validation data during training: name some in the stage, such as "
                "validation={'source': ..., 'split': 'validation', 'budget': {'examples': 100}}"
            )
        validation = inputs.validation_data(stage.validation, student, stage.max_length)
        changes["validation"] = _pin_data(stage.validation, inputs)
    stage = stage.model_copy(update=changes)
    data = inputs.stage_data(stage, student, _selection(recipe, teacher, inputs))
    if not rollout.keeps_rows and any(example.is_text for example in data.examples):
        raise InputError(f"method {stage.method!r} makes answers to prompts, and the data holds raw texts: take `sft`")
    if stage.selected_sha256 not in (None, data.selected_sha256):
        raise InputError(
            f"method {stage.method!r}: models select other examples now than when this specification was pinned; "
            "bring the models back, or remove `selected_sha256`"
        )
    stage = stage.model_copy(update={"selected_sha256": data.selected_sha256})
    return ResolvedStage(stage, recipe, data, validation)


def _selection(recipe: Recipe, teacher: ModelRef | None, inputs: Inputs) -> Selection | None:
    """Return the part of a budget that a method trains on; None for all of it."""
    if recipe.select is None:
        return None
    models = {} if teacher is None else {"teacher": teacher}
    if recipe.reference is not None:
        models["reference"] = inputs.models.find(recipe.reference)
    return Selection(recipe.select, recipe.keep_fraction, models)


def _pin_student(spec: RunSpec, model: ModelRef) -> Any:
    student = spec.student
    if student.random_config is None:
        sha256 = model.sha256
    else:
        architecture(student.random_config)
        sha256 = config_hash(student.random_config, model.tokenizer)
    return _pinned(student, sha256, f"student {student.name!r}")


def _pin_data(data: Data, inputs: Inputs) -> Data:
    pool = inputs.pool(data)
    if data.budget.examples is not None and data.budget.examples > len(pool.examples):
        raise InputError(
            f"budget of {data.budget.examples:,} examples is larger than the pool of {len(pool.examples):,} "
            f"(source {data.source!r}, split {data.split!r})"
        )
    return _pinned(data, pool.sha256, f"source {data.source!r}")


def _pinned(part: Any, sha256: str, what: str) -> Any:
    """Fill in the sha256, or compare a given one with that of what is there.

    Raises:
        InputError: the specification was pinned to another sha256.
    """
    if part.sha256 not in (None, sha256):
        raise InputError(
            f"{what} is not what this specification was pinned to (sha256 {part.sha256[:12]} then, {sha256[:12]} "
            "now): bring back the old one, or remove `sha256` to run with the new one"
        )
    return part.model_copy(update={"sha256": sha256})
