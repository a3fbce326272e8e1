"""Pin a specification: look up the models, methods and data that it names, once, and fill in their hashes.

    run = pin(RunSpec.parse(plain), "results")
    run.spec, run.run_id, run.stages[0].data.encoded

Everything that can be wrong is refused here, in one line, before a model is loaded; the checks are those of
`studykit.study.checks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from studykit.data import Inputs, Selection
from studykit.data.filters import Excluded
from studykit.errors import InputError
from studykit.evaluation import held_out
from studykit.methods import Recipe, get_method
from studykit.models.loading import architecture, config_hash
from studykit.models.names import ModelRef
from studykit.models.vocabulary import shared_vocabulary
from studykit.scorers import any_needs
from studykit.sources import content_hash
from studykit.spec import Data, Evaluation, RunSpec, Stage, Student, Teacher, steps_for_epochs
from studykit.study import checks
from studykit.study.capacity import check_capacity
from studykit.study.code import code_of_evaluation, code_of_stage
from studykit.study.coverage import describe_items
from studykit.study.overlap import check_decontaminate, count_held_out, pin_decontaminated
from studykit.teacher.endpoint import endpoint_hash
from studykit.training.resolved import ResolvedEvaluation, ResolvedRun, ResolvedStage

P = TypeVar("P", Student, Teacher, Data)


def pin(spec: RunSpec, inputs: Inputs | str | Path = "results") -> ResolvedRun:
    """Return the run that a specification describes, with everything that it names looked up, and steps for epochs.

    A teacher that no stage needs is dropped, so that an SFT arm is the same run beside any teacher.

    Args:
        spec: with or without hashes.
        inputs: looks up models and data, and specifications pinned together share one; or the results folder, whose
            finished runs can be named as models.

    Raises:
        InputError: the first thing that is wrong, in one line.
    """
    inputs = inputs if isinstance(inputs, Inputs) else Inputs(inputs)
    checks.check_names(spec)
    checks.check_evaluations(spec.evaluation)
    check_decontaminate(spec)
    users = [_users(stage) for stage in spec.stages]
    checks.check_teacher_is_named(spec, [user for stage in users for user in stage])
    student = inputs.models.find(spec.student.name, spec.student.revision)
    shared = [user for stage in users for user in stage if user[0].teacher is None]
    wanted, teacher = _find_teacher(spec.teacher, shared, student, inputs)
    evaluations = tuple(_resolve_evaluation(evaluation, student, inputs) for evaluation in spec.evaluation)
    items = [item for evaluation in evaluations for item in evaluation.held_out]
    stages: list[ResolvedStage] = []
    for number, (stage, its_users) in enumerate(zip(spec.stages, users, strict=True)):
        own, own_teacher = _find_teacher(stage.teacher, its_users, student, inputs)
        left_out = replace(excluded(stage, number, stages), held_out=items, held_out_sha256=content_hash(items))
        parts = _Parts(its_users, student, own_teacher if stage.teacher else teacher, left_out)
        resolved = _resolve_stage(stage.model_copy(update={"teacher": own}), parts, inputs)
        stages.append(replace(resolved, seeds=(spec.seed, number), own_teacher=own_teacher))
    pinned = {
        "student": _pin_student(spec.student, student),
        "teacher": wanted,
        "stages": tuple(stage.spec for stage in stages),
        "evaluation": tuple(evaluation.spec for evaluation in evaluations),
    }
    checks.check_evaluations(pinned["evaluation"])
    run = ResolvedRun(spec.model_copy(update=pinned), student, teacher, tuple(stages), evaluations)
    check_capacity(run)
    return count_held_out(run, inputs)


def _users(stage: Stage) -> list[tuple[Stage, Recipe]]:
    """Return the stage with the method of each part of a step, and the method's recipe."""
    return [
        (stage.model_copy(update={"method": name, "method_options": options}), get_method(name, **options))
        for name, options in stage.methods
    ]


def _find_teacher(
    teacher: Teacher | None, users: Sequence[tuple[Stage, Recipe]], student: ModelRef, inputs: Inputs
) -> tuple[Teacher, ModelRef] | tuple[None, None]:
    """Return the teacher of some stages, pinned and pruned as their methods require, and its model; None where none of
    them needs one."""
    needing = [recipe for _, recipe in users if recipe.needs_teacher]
    if teacher is None or not needing:
        return None, None
    for stage, recipe in users:
        checks.check_endpoint(stage, recipe, teacher)
        checks.check_cached(stage, recipe, teacher)
    if teacher.pruned is None:
        shares = {recipe.teacher_pruned for recipe in needing}
        checks.check_one_pruning(shares)
        teacher = teacher.model_copy(update={"pruned": shares.pop()})
    model = inputs.models.find(teacher.name, teacher.revision)
    checks.check_engine(teacher, model)
    checks.check_weights_fit(teacher, model)
    checks.check_tokenizers(teacher, [recipe for _, recipe in users], student.tokenizer, model.tokenizer)
    sha256 = model.sha256 if teacher.endpoint is None else endpoint_hash(teacher.endpoint, model.tokenizer)
    return _with_sha256(teacher, sha256, f"teacher {teacher.name!r}"), model


def excluded(stage: Stage, number: int, earlier: Sequence[ResolvedStage]) -> Excluded:
    """Return the examples that a stage does not draw: those of earlier stages, and single ones by their ids.

    Raises:
        InputError: the number of a stage that does not come before this one.
    """
    numbers = [part for part in stage.exclude or () if isinstance(part, int)]
    for wrong in (wrong for wrong in numbers if not 1 <= wrong <= number):
        known = f"one of 1 to {number}" if number else "of which there is none"
        raise InputError(f"stage {number + 1}: exclude: {wrong} is not the number of an earlier stage, {known}")
    texts = {example.text_key for wanted in numbers for example in earlier[wanted - 1].data.drawn}
    return Excluded(frozenset(texts), frozenset(part for part in stage.exclude or () if isinstance(part, str)))


def _pin_student(student: Student, model: ModelRef) -> Student:
    if student.random_config is None:
        sha256 = model.sha256
    else:
        architecture(student.random_config)
        sha256 = config_hash(student.random_config, model.tokenizer)
    return _with_sha256(student, sha256, f"student {student.name!r}")


def _resolve_evaluation(evaluation: Evaluation, student: ModelRef, inputs: Inputs) -> ResolvedEvaluation:
    pinned, pool = _pin_data(evaluation.data, inputs), inputs.kept(evaluation.data, student).examples
    code, items = code_of_evaluation(evaluation), held_out(evaluation, pool)
    checks.check_code(evaluation.code, code, "the evaluation")
    teacher = _find_evaluation_teacher(evaluation, student, inputs)
    named = {"teacher": evaluation.teacher, "teacher_sha256": teacher.sha256} if teacher else {"teacher": None}
    spec = evaluation.model_copy(update={"data": pinned, "code": code} | named)
    return ResolvedEvaluation(spec, items, describe_items(items, pool), teacher=teacher)


def _find_evaluation_teacher(evaluation: Evaluation, student: ModelRef, inputs: Inputs) -> ModelRef | None:
    """Return the model that scorers compare the student with, token by token; None where no scorer does.

    Raises:
        InputError: no such model, other weights than it was pinned to, or another tokenizer.
    """
    if evaluation.teacher is None or not any_needs(evaluation.scorers, "teacher"):
        return None
    teacher = inputs.models.find(evaluation.teacher)
    checks.check_sha256(evaluation.teacher_sha256, teacher.sha256, f"evaluation.teacher {evaluation.teacher!r}")
    shared_vocabulary(student.tokenizer, teacher.tokenizer)
    return teacher


@dataclass(frozen=True)
class _Parts:
    """What a stage is resolved with; users are its parts, see `_users`."""

    users: list[tuple[Stage, Recipe]]
    student: ModelRef
    teacher: ModelRef | None
    excluded: Excluded


def _resolve_stage(stage: Stage, parts: _Parts, inputs: Inputs) -> ResolvedStage:
    recipes, student = [recipe for _, recipe in parts.users], parts.student
    pinned: dict[str, Any] = {"data": _pin_drawn(stage.data, stage, parts, inputs), "validation": None}
    pinned["code"] = code_of_stage(stage, recipes)
    checks.check_code(stage.code, pinned["code"], f"method {stage.method!r}")
    if stage.mix:
        mixed = [part.model_copy(update={"data": _pin_drawn(part.data, stage, parts, inputs)}) for part in stage.mix]
        pinned["mix"] = tuple(mixed)
    examples, validation = [], None
    validating = [user for user, recipe in parts.users if recipe.parts[1].needs_validation]
    if validating or stage.load_best_model_at_end:
        checks.check_validation_is_named([*validating, stage][0])
        assert stage.validation is not None
        alone = replace(parts, excluded=replace(parts.excluded, texts=frozenset(), ids=frozenset()))
        examples, validation = inputs.validation_data(stage.validation, student, stage, alone.excluded)
        pinned["validation"] = _pin_drawn(stage.validation, stage, alone, inputs)
    selections = [_selection(recipe, parts.teacher, inputs) for recipe in recipes]
    data = inputs.stage_data(stage, student, selections, parts.excluded)
    for number, (user, recipe) in enumerate(parts.users):
        checks.check_prompts(user, recipe, data.part(number)[0])
        if parts.teacher is not None:
            checks.check_same_answers(data.part(number), recipe, student.tokenizer, parts.teacher.tokenizer)
    checks.check_selection(stage, data)
    pinned["selected_sha256"] = data.selected_sha256
    if stage.epochs is not None:
        steps = steps_for_epochs(stage.epochs, len(data.examples), stage.examples_per_step)
        pinned |= {"steps": steps, "epochs": None}
    stage, part_recipes = stage.model_copy(update=pinned), tuple(recipes) if stage.mix else ()
    return ResolvedStage(stage, recipes[0], data, validation, examples, part_recipes=part_recipes)


def _selection(recipe: Recipe, teacher: ModelRef | None, inputs: Inputs) -> Selection | None:
    """Return the part of a budget that a method trains on; None for all of it."""
    if recipe.select is None:
        return None
    models = {} if teacher is None else {"teacher": teacher}
    if recipe.reference is not None:
        models["reference"] = inputs.models.find(recipe.reference)
    return Selection(recipe.select, recipe.keep_fraction, models)


def _pin_data(data: Data, inputs: Inputs) -> Data:
    return _with_sha256(data, inputs.pool(data).sha256, f"source {data.source!r}")


def _pin_drawn(data: Data, stage: Stage, parts: _Parts, inputs: Inputs) -> Data:
    """Pin data that a stage draws from, and what `decontaminate` leaves of it."""
    pinned = _pin_data(data, inputs)
    return pin_decontaminated(pinned, inputs.kept(data, parts.student, stage.turns, parts.excluded).examples)


def _with_sha256(part: P, sha256: str, what: str) -> P:
    """Fill in a hash; one that is there already must be the same."""
    checks.check_sha256(part.sha256, sha256, what)
    return part.model_copy(update={"sha256": sha256})
