"""Pin a specification: look up the models, methods and data that it names, once, and fill in their hashes.

    run = pin(RunSpec.parse(plain), "results")
    run.spec, run.run_id, run.stages[0].data.encoded

Everything that can be wrong is refused here, in one line, before a model is loaded; the checks are those of
`studykit.study.checks`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from studykit.data import Inputs, Selection
from studykit.evaluation import held_out
from studykit.methods import Recipe, get_method
from studykit.models.loading import architecture, config_hash
from studykit.models.names import ModelRef
from studykit.spec import Data, Evaluation, RunSpec, Stage, Student, Teacher, steps_for_epochs
from studykit.study import checks
from studykit.study.capacity import check_capacity
from studykit.study.code import code_of_evaluation, code_of_stage
from studykit.study.coverage import describe_items
from studykit.study.overlap import check_overlap
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
    checks.check_single_process()
    checks.check_names(spec)
    checks.check_evaluations(spec.evaluation)
    recipes = [get_method(stage.method, **stage.method_options) for stage in spec.stages]
    checks.check_teacher_is_named(spec, recipes)
    student = inputs.models.find(spec.student.name, spec.student.revision)
    wanted, teacher = _needed_teacher(spec, recipes), None
    if wanted is not None:
        teacher = inputs.models.find(wanted.name, wanted.revision)
        checks.check_tokenizers(wanted, recipes, student.tokenizer, teacher.tokenizer)
    stages = [
        replace(_resolve_stage(stage, recipe, student, teacher, inputs), seeds=(spec.seed, number))
        for number, (stage, recipe) in enumerate(zip(spec.stages, recipes, strict=True))
    ]
    evaluations = tuple(_resolve_evaluation(evaluation, student, inputs) for evaluation in spec.evaluation)
    pinned = {
        "student": _pin_student(spec.student, student),
        "teacher": wanted and teacher and _with_sha256(wanted, teacher.sha256, f"teacher {wanted.name!r}"),
        "stages": tuple(stage.spec for stage in stages),
        "evaluation": tuple(evaluation.spec for evaluation in evaluations),
    }
    checks.check_evaluations(pinned["evaluation"])
    run = ResolvedRun(spec.model_copy(update=pinned), student, teacher, tuple(stages), evaluations)
    check_capacity(run)
    check_overlap(run)
    return run


def _needed_teacher(spec: RunSpec, recipes: Sequence[Recipe]) -> Teacher | None:
    """Return the teacher, pruned as the methods require; None where no stage needs one."""
    needing = [recipe for recipe in recipes if recipe.needs_teacher]
    if spec.teacher is None or not needing:
        return None
    for stage, recipe in zip(spec.stages, recipes, strict=True):
        checks.check_cached(stage, recipe, spec.teacher)
    if spec.teacher.pruned is not None:
        return spec.teacher
    shares = {recipe.teacher_pruned for recipe in needing}
    checks.check_one_pruning(shares)
    return spec.teacher.model_copy(update={"pruned": shares.pop()})


def _pin_student(student: Student, model: ModelRef) -> Student:
    if student.random_config is None:
        sha256 = model.sha256
    else:
        architecture(student.random_config)
        sha256 = config_hash(student.random_config, model.tokenizer)
    return _with_sha256(student, sha256, f"student {student.name!r}")


def _resolve_evaluation(evaluation: Evaluation, student: ModelRef, inputs: Inputs) -> ResolvedEvaluation:
    pinned, pool = _pin_data(evaluation.data, inputs), list(inputs.kept(evaluation.data, student).examples)
    code, items = code_of_evaluation(evaluation), held_out(evaluation, pool)
    checks.check_code(evaluation.code, code, "the evaluation")
    spec = evaluation.model_copy(update={"data": pinned, "code": code})
    return ResolvedEvaluation(spec, items, describe_items(items, pool))


def _resolve_stage(
    stage: Stage, recipe: Recipe, student: ModelRef, teacher: ModelRef | None, inputs: Inputs
) -> ResolvedStage:
    pinned: dict[str, Any] = {"data": _pin_data(stage.data, inputs), "validation": None}
    pinned["code"] = code_of_stage(stage, recipe)
    checks.check_code(stage.code, pinned["code"], f"method {stage.method!r}")
    validation, (_, rollout) = None, recipe.parts
    if rollout.needs_validation:
        checks.check_validation_is_named(stage)
        assert stage.validation is not None
        validation = inputs.validation_data(stage.validation, student, stage)
        pinned["validation"] = _pin_data(stage.validation, inputs)
    data = inputs.stage_data(stage, student, _selection(recipe, teacher, inputs))
    checks.check_prompts(stage, recipe, data)
    checks.check_selection(stage, data)
    if teacher is not None:
        checks.check_same_answers(data, recipe, student.tokenizer, teacher.tokenizer)
    pinned["selected_sha256"] = data.selected_sha256
    if stage.epochs is not None:
        steps = steps_for_epochs(stage.epochs, len(data.examples), stage.examples_per_step)
        pinned |= {"steps": steps, "epochs": None}
    return ResolvedStage(stage.model_copy(update=pinned), recipe, data, validation)


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


def _with_sha256(part: P, sha256: str, what: str) -> P:
    """Fill in a hash; one that is there already must be the same."""
    checks.check_sha256(part.sha256, sha256, what)
    return part.model_copy(update={"sha256": sha256})
