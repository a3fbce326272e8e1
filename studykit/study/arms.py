"""All arms of a comparison from one set of parameters, each named by its methods.

    arms(["sft", "kd"], **parameters(globals()))         # in a notebook, below its parameters cell

An arm is a method (`kd`), a method with other options and a label (`taid:linear`), or several methods one after the
other (`sft>gkd`), which share the steps equally, or by weights: `sft*9>gkd` gives nine tenths of them to the first
stage. `sft>gkd@0.1` trains the second one at a tenth of the learning rate. The arms have the same student, data, seed,
number of steps and evaluation, so that their difference is that of the methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from studykit.discovery import check_options, options_of
from studykit.errors import InputError, unknown
from studykit.methods import METHODS, get_method
from studykit.scorers import any_needs, name_of
from studykit.spec import Seed, steps_for_epochs
from studykit.study.arm_stages import ArmStage, divide_steps, round_significant

AtLeastZero = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
AboveZero = Annotated[float, Field(gt=0)]
Options = dict[str, Any]
_OF_VALIDATION = ("source", "options", "filters", "decontaminate")
"""What validation data shares with the data that is trained on."""

_FIRST = "first"
"""The sampler that is written as `evaluation.items`, so that runs on the first of a split keep their ids."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What the arms of a comparison have in common, and in which options they differ.

    Args:
        student: the model that all arms train.
        teacher: the model that is distilled.
        source: where examples come from.
        budget_examples: number of examples trained on.
        learning_rate: of the optimizer.
        teachers: by arm, where it is not `teacher`: the name of another, or more of its fields, as {"top_k": 4}.
        method_options: by method as an arm names it, label and all: {"gkd": {...}, "taid:linear": {...}}.
        common_options: options given to every method that has them.
        stage_options: by method as an arm names it: more fields of its stages; of `data` and its budget, those that are
            not as in the other stages: {"sft:few": {"data": {"budget": {"examples": 100}}}}.
        seed: draws the examples and their order.
        steps: optimizer steps; 0 chooses by the budget, see `steps_for`.
        epochs: passes over the budget, instead of steps; all arms take the same number of steps, also those whose
            method trains on a part of the budget.
        batch_size: sequences per micro-batch.
        gradient_accumulation_steps: micro-batches per step.
        max_length: tokens of the longest example.
        turns: answers of a conversation that are trained on: the last, each in a separate sequence, or all in one;
            None for all where the chat template allows it, otherwise the last.
        source_options: options of the source.
        filters: what is left out before the budget is drawn, such as {"max_tokens": 1024}; of held-out items, those
            without an answer alone.
        sampler: draws the budget.
        sampler_options: options of the sampler, such as {"teacher": ..., "reference": ...} for `difference`.
        decontaminate: leaves training and validation examples out that have an item of the evaluation, or its prompt.
        lora_r: rank of adapters; 0 trains all weights.
        lora_alpha: of adapters.
        teacher_top_k: largest probabilities that are cached; 0 runs the live teacher at every step.
        student_options: more fields of the specification's student.
        teacher_options: more fields of its teacher.
        training_options: more fields of every stage. Its `validation` is of the same source unless it names another:
            {"load_best_model_at_end": True, "validation": {"split": "validation"}}.
        evaluation_options: more fields of the evaluation, such as {"choices": ["yes", "no"]}.
        scorers: what the evaluation measures, by name or as {"name": ..., option: value}.
        primary_metric: the one of them that findings are about; it changes no run.
        test_split: what the evaluation scores.
        test_items: number of its items; None for the whole split.
        test_sampler: draws them, from one seed for all runs; "first" takes the first of the split.
        test_batch_size: items per batch of the evaluation.
        max_new_tokens: of an answer in the evaluation.
        validation_split: what methods with a validation loss look at; None for none.
        validation_items: number of its examples.
    """

    student: str
    teacher: str
    source: str
    budget_examples: AtLeastOne
    learning_rate: float
    teachers: dict[str, str | Options] = field(default_factory=dict)
    method_options: dict[str, Options] = field(default_factory=dict)
    common_options: Options = field(default_factory=dict)
    stage_options: dict[str, Options] = field(default_factory=dict)
    seed: Seed = 0
    steps: AtLeastZero = 0
    epochs: AboveZero | None = None
    batch_size: AtLeastOne = 64
    gradient_accumulation_steps: AtLeastOne = 1
    max_length: int = 2048
    turns: Literal["last", "each", "all"] | None = None
    source_options: Options = field(default_factory=dict)
    filters: Options = field(default_factory=dict)
    sampler: str = "uniform"
    sampler_options: Options = field(default_factory=dict)
    decontaminate: bool = False
    lora_r: AtLeastZero = 0
    lora_alpha: AtLeastOne = 32
    teacher_top_k: AtLeastZero = 0
    student_options: Options = field(default_factory=dict)
    teacher_options: Options = field(default_factory=dict)
    training_options: Options = field(default_factory=dict)
    evaluation_options: Options = field(default_factory=dict)
    scorers: list[str | Options] = field(default_factory=lambda: ["exact_match", "token_error_rate", "nll"])
    primary_metric: str | None = None
    test_split: str = "test"
    test_items: AtLeastOne | None = None
    test_sampler: str = "uniform"
    test_batch_size: AtLeastOne = 64
    max_new_tokens: AtLeastOne = 256
    validation_split: str | None = None
    validation_items: AtLeastOne | None = None


def parameters(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a notebook's names that `arms` takes: `arms(["sft", "kd"], **parameters(globals()))`.

    A notebook's parameters are flat assignments, since a batch replaces them one by one; this collects them under
    their names. The reader sees where they come from, `globals()`, and the arms cell overrides single ones:
    `parameters(globals()) | {"seed": 1}`.

    >>> parameters({"seed": 3, "study": "scratch", "In": []})
    {'seed': 3}
    """
    return {part.name: names[part.name] for part in fields(Parameters) if part.name in names}


def arms(names: Sequence[str] | Mapping[str, str], **values: Any) -> dict[str, dict[str, Any]]:
    """Return the plain specification of every arm, by its name.

    Args:
        names: the arms by their methods: `kd`, `taid:linear`, `sft>gkd`, `sft*9>gkd@0.1`; or the methods by the name of
            the arm, where the methods alone do not tell arms apart.
        values: see `Parameters`.

    Raises:
        InputError: an unknown method, option or parameter, with the nearest known one.

    >>> shared = {"student": "a", "teacher": "b", "source": "c", "budget_examples": 500, "learning_rate": 0.1}
    >>> made = arms(["sft", "sft>kd", "sft*9>kd"], **shared)
    >>> {name: [stage["steps"] for stage in arm["stages"]] for name, arm in made.items()}
    {'sft': [300], 'sft>kd': [150, 150], 'sft*9>kd': [270, 30]}
    """
    check_options("arms of", "a comparison", options_of(Parameters), values)
    given = Parameters(**values)
    if given.epochs is not None and (given.steps or "steps" in given.training_options):
        raise InputError(f"give steps or epochs, not both: steps=0 leaves them to epochs={given.epochs:g}")
    _check_keys(given)
    methods = names if isinstance(names, Mapping) else {name: name for name in names}
    return {arm: _arm(arm, parts.split(">"), given) for arm, parts in methods.items()}


def _check_keys(given: Parameters) -> None:
    """Refuse options of a method that does not exist, and options that no method has: they would be lost.

    Raises:
        InputError: naming the nearest method or option.
    """
    for name, by_part in (("method_options", given.method_options), ("stage_options", given.stage_options)):
        for part in (part for part, options in by_part.items() if options):
            if (method := part.partition(":")[0]) not in METHODS.names():
                raise InputError(f"{name}: {unknown('method', method, METHODS.names())}")
    for part, options in given.stage_options.items():
        if taken := [name for name in ("method", "method_options", "steps", "epochs") if name in options]:
            raise InputError(f"stage_options of {part!r}: {taken[0]} has another parameter, or is shared by all arms")
    known = {option for method in METHODS.names() for option in METHODS.member(method).options}
    for name in given.common_options:
        if name not in known:
            raise InputError(f"common_options: {unknown('option', name, known)}")


def steps_for(budget_examples: int) -> int:
    """Return the number of optimizer steps for a budget: 300 at 500 examples, growing with their power of 0.275.

    Eighty times the examples get a little more than three times the steps, so that large budgets stay affordable and
    small ones are repeated until they are learned.

    >>> [steps_for(n) for n in (500, 5000, 40_000)]
    [300, 565, 1001]
    """
    return round(300 * (budget_examples / 500) ** 0.275)


def _arm(arm: str, parts: Sequence[str], given: Parameters) -> dict[str, Any]:
    adapters = {"lora_r": given.lora_r, "lora_alpha": given.lora_alpha} if given.lora_r else None
    specification = {
        "student": {"name": given.student, "lora": adapters, **given.student_options},
        "stages": _stages(parts, given),
        "evaluation": _evaluation(given),
        "seed": given.seed,
    }
    if any(_needs_teacher(stage) for stage in specification["stages"]):
        specification["teacher"] = _teacher(arm, given)
    return specification


def _stages(parts: Sequence[str], given: Parameters) -> list[dict[str, Any]]:
    """Return one stage per method, each with its part of the steps."""
    shared = _stage(given)
    if given.epochs is not None:
        per_step = shared["batch_size"] * shared["gradient_accumulation_steps"]
        shared["steps"] = steps_for_epochs(given.epochs, given.budget_examples, per_step)
    read = [ArmStage.parse(part) for part in parts]
    stages = []
    for part, length in zip(read, divide_steps(shared["steps"], read), strict=True):
        method = part.name.partition(":")[0]
        options = {name: value for name, value in given.common_options.items() if name in METHODS.options(method)}
        options |= given.method_options.get(part.name, {})
        stage = _with_fields(shared, given.stage_options.get(part.name, {}), given.seed)
        if part.rate != 1:
            stage["learning_rate"] = round_significant(stage["learning_rate"] * part.rate)
        stages.append(stage | {"method": method, "method_options": options, "steps": length})
    return stages


def _with_fields(stage: Options, fields: Options, seed: int) -> Options:
    """Return a stage with other fields; of its data and budget, those that are not given stay.

    Validation data that names no source is of the stage's source, or the stage's own with other fields.

    Raises:
        InputError: validation data with neither source nor split, which would be what is trained on.
    """
    changed = stage | fields
    if isinstance(data := fields.get("data"), dict):
        changed["data"] = stage["data"] | data | {"budget": stage["data"]["budget"] | data.get("budget", {})}
    if isinstance(validation := fields.get("validation"), dict) and "source" not in validation:
        own = stage.get("validation") or {key: changed["data"][key] for key in _OF_VALIDATION if key in changed["data"]}
        changed["validation"] = own | validation
        if "split" not in changed["validation"]:
            raise InputError("validation data needs a split that is not trained on, such as {'split': 'validation'}")
    if parts := fields.get("mix"):
        changed["mix"] = [_with_seed(part, seed) for part in parts]
    return changed


def _stage(given: Parameters) -> dict[str, Any]:
    data = _data(given) | {"filters": given.filters or None, "decontaminate": given.decontaminate}
    ranking = {"sampler": given.sampler, "options": given.sampler_options or None, "seed": given.seed}
    budget = {"examples": given.budget_examples, **ranking}
    validation = {"split": given.validation_split, "budget": {"examples": given.validation_items}}
    stage = {
        "data": data | {"budget": budget},
        "validation": data | validation if given.validation_split else None,
        "steps": given.steps or steps_for(given.budget_examples),
        "batch_size": given.batch_size,
        "gradient_accumulation_steps": given.gradient_accumulation_steps,
        "learning_rate": given.learning_rate,
        "max_length": given.max_length,
        "turns": given.turns,
    }
    return _with_fields(stage, given.training_options, given.seed)


def _evaluation(given: Parameters) -> dict[str, Any]:
    data = _data(given) | {"split": given.test_split, "filters": _filters_of_items(given)}
    shared = {"max_new_tokens": given.max_new_tokens, "batch_size": given.test_batch_size, "scorers": given.scorers}
    shared |= given.evaluation_options
    names = [name_of(scorer) for scorer in given.scorers]
    if given.primary_metric not in (None, *names) and "scorers" not in given.evaluation_options:
        raise InputError(f"primary_metric {given.primary_metric!r} is none of the scorers: {', '.join(names)}")
    if any_needs(shared["scorers"], "teacher"):
        shared = {"teacher": given.teacher} | shared
    if given.test_items is None or given.test_sampler == _FIRST:
        return {"data": data, "items": given.test_items} | shared
    budget = {"examples": given.test_items, "sampler": given.test_sampler}
    return {"data": data | {"budget": budget}} | shared


def _with_seed(part: Options, seed: int) -> Options:
    """Return a part of a mixture whose budget is drawn from the seed of the comparison, unless it names its own."""
    data = part.get("data", {})
    return part | {"data": data | {"budget": {"seed": seed} | data.get("budget", {})}}


def _teacher(arm: str, given: Parameters) -> dict[str, Any]:
    by_arm = given.teachers.get(arm, {})
    shared = {"name": given.teacher, "top_k": given.teacher_top_k or None} | given.teacher_options
    return shared | ({"name": by_arm} if isinstance(by_arm, str) else by_arm)


def _data(given: Parameters) -> dict[str, Any]:
    return {"source": given.source, "options": given.source_options}


def _filters_of_items(given: Parameters) -> Options | None:
    return {"on_empty": given.filters["on_empty"]} if "on_empty" in given.filters else None


def _needs_teacher(stage: Mapping[str, Any]) -> bool:
    """Whether the method of a stage, or that of a part of its steps, needs a teacher."""
    methods = [stage, *(part for part in stage.get("mix") or [] if part.get("method"))]
    return any(get_method(part["method"], **(part.get("method_options") or {})).needs_teacher for part in methods)
