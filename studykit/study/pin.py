"""Check a specification against what is there, and fill in the hashes of the models and data it names.

    pinned = pin(RunSpec.parse(plain), "results")

Everything that can be wrong is refused here, in one line, before a model is trained.
"""

import os
from pathlib import Path
from typing import Any

from transformers import SchedulerType

from studykit.data import stage_data, validation_data
from studykit.errors import InputError, unknown
from studykit.evaluation import held_out
from studykit.methods import Recipe, get_method
from studykit.models.loading import architecture, check_attention, config_hash, load_tokenizer
from studykit.models.names import weights_hash
from studykit.models.vocabulary import same_vocabulary, shared_vocabulary
from studykit.samplers import SAMPLERS
from studykit.scorers import SCORERS
from studykit.sources import content_hash, load_examples
from studykit.spec import Budget, Data, RunSpec, Stage, Teacher

_WITH_SETTINGS = {
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "reduce_lr_on_plateau",
    "greedy",
}
SCHEDULES = [schedule.value for schedule in SchedulerType if schedule.value not in _WITH_SETTINGS]
"""Learning-rate schedules of transformers that need nothing but a name."""


def pin(spec: RunSpec, root: str | Path = "results", contents: dict[str, str] | None = None) -> RunSpec:
    """Check everything that a specification names and fill in the hashes of models and data.

    A teacher that no stage asks is dropped, so that an SFT arm is the same run beside any teacher.

    Args:
        spec: what was asked for.
        root: where runs named as models lie.
        contents: content hashes of data found a moment ago; specifications pinned together share one.

    Raises:
        InputError: the first thing that cannot be had, in one line.
    """
    root, contents = Path(root), {} if contents is None else contents
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
    tokenizer = load_tokenizer(spec.student.name, root, spec.student.revision)
    teacher = _pin_teacher(spec, recipes, tokenizer, root)
    stages = tuple(
        _pin_stage(stage, recipe, tokenizer, teacher, root, contents)
        for stage, recipe in zip(spec.stages, recipes, strict=True)
    )
    changes: dict[str, Any] = {"student": _pin_student(spec, root), "teacher": teacher, "stages": stages}
    if spec.evaluation is not None:
        held_out(spec.evaluation)
        changes["evaluation"] = spec.evaluation.model_copy(update={"data": _pin_data(spec.evaluation.data, contents)})
    return spec.model_copy(update=changes)


def _pin_teacher(spec: RunSpec, recipes: list[Recipe], tokenizer: Any, root: Path) -> Teacher | None:
    """Check that every method gets the kind of teacher it needs; a teacher that nobody asks is dropped."""
    teacher = spec.teacher
    if teacher is None or not any(recipe.needs_teacher for recipe in recipes):
        return None
    same = same_vocabulary(tokenizer, load_tokenizer(teacher.name, root, teacher.revision))
    for stage, recipe in zip(spec.stages, recipes, strict=True):
        if teacher.is_cached and recipe.trains_with_teacher:
            _check_cached(stage.method, recipe, teacher)
        if not same and (teacher.is_cached or not recipe.across_tokenizers):
            shared_vocabulary(tokenizer, load_tokenizer(teacher.name, root, teacher.revision))  # says what differs
    shares = {recipe.teacher_pruned for recipe in recipes if recipe.needs_teacher}
    if teacher.pruned is None and shares != {None}:
        if len(shares) > 1:
            raise InputError(f"the stages ask for teachers pruned by {shares}: set the teacher's `pruned` yourself")
        teacher = teacher.model_copy(update={"pruned": shares.pop()})
    sha256 = weights_hash(teacher.name, root, teacher.revision)
    return _pinned(teacher, sha256, f"teacher {teacher.name!r}")


def _check_cached(method: str, recipe: Recipe, teacher: Teacher) -> None:
    """Refuse a cached teacher where the live one is needed."""
    loss = recipe.make_loss()
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
    stage: Stage, recipe: Recipe, tokenizer: Any, teacher: Teacher | None, root: Path, contents: dict[str, str]
) -> Stage:
    changes: dict[str, Any] = {"data": _pin_data(stage.data, contents), "validation": None}
    if recipe.make_rollout().needs_validation:
        if stage.validation is None:
            raise InputError(
                f"method {stage.method!r} looks at validation data during training: name some in the stage, such as "
                "validation={'source': ..., 'split': 'validation', 'budget': {'examples': 100}}"
            )
        validation_data(stage.validation, tokenizer, stage.max_length, root)
        changes["validation"] = _pin_data(stage.validation, contents)
    stage = stage.model_copy(update=changes)
    data = stage_data(stage, tokenizer, root, teacher)
    if not recipe.make_rollout().keeps_rows and any(example.is_text for example in data.examples):
        raise InputError(f"method {stage.method!r} makes answers to prompts, and the data holds raw texts: take `sft`")
    if stage.selected_sha256 not in (None, data.chosen):
        raise InputError(
            f"method {stage.method!r}: models select other examples now than when this specification was pinned; "
            "bring the models back, or remove `selected_sha256`"
        )
    return stage.model_copy(update={"selected_sha256": data.chosen})


def _pin_student(spec: RunSpec, root: Path) -> Any:
    student = spec.student
    if student.random_config is None:
        sha256 = weights_hash(student.name, root, student.revision)
    else:
        architecture(student.random_config)
        sha256 = config_hash(student.random_config, load_tokenizer(student.name, root, student.revision))
    return _pinned(student, sha256, f"student {student.name!r}")


def _pin_data(data: Data, contents: dict[str, str]) -> Data:
    pool = load_examples(data.source, data.split, data.options)
    if data.budget.examples is not None and data.budget.examples > len(pool):
        raise InputError(
            f"budget of {data.budget.examples:,} examples is larger than the pool of {len(pool):,} "
            f"(source {data.source!r}, split {data.split!r})"
        )
    key = data.model_copy(update={"budget": Budget(), "sha256": None}).model_dump_json()
    contents[key] = contents.get(key) or content_hash(pool)
    return _pinned(data, contents[key], f"source {data.source!r}")


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
