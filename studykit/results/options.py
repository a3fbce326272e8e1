"""The options of runs as columns, and which runs may be averaged.

A column is named after its field of the specification:

- a field of a stage by its own name: `learning_rate`, `batch_size`, `max_length`, `padding_free`, ...
- a field of student, teacher, evaluation or validation with that word in front: `student_attn_implementation`,
  `teacher_top_k`, `evaluation_items`, `validation_split`; those of `student.lora` are `lora_r`, `lora_alpha`, ...; of a
  teacher's endpoint `teacher_endpoint_model`
- a stage's parts of a step and its own teacher, as JSON: `mix`, `own_teacher`
- a stage's data and budget: `source`, `split`, `sampler`, and what is left out: `filter_max_tokens`
- one key of a mapping after a dot: `method_options.beta`, `source_options.tasks`, `sampler_options.reference`,
  `student_random_config.hidden_size`
- where the stages of a run differ in a field: `stage_1.learning_rate`, `stage_2.learning_rate`, and then also
  `stage_1.steps`, `stage_1.examples`; a value that all stages share has the plain name

A value that is the field's default is left out of `option_values`; a list or mapping is its JSON text, so that every
value can be compared. Method, names of models, budget, steps and seed have other columns and are no options, and the
batch size of an evaluation changes no number. Code that is not the released one is an option: `code.loss.mine`,
`evaluation_code.scorer.mine`. What names and options do not tell, such as a file that has other lines than before, the
columns `inputs` and `eval_id` do: hashes of the models and data of a training, and of an evaluation.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import pandas as pd
from pydantic import BaseModel

from studykit.spec import WHERE, Budget, Data, Endpoint, Evaluation, Filters, Lora, RunSpec, Stage, Student, Teacher

_NO_OPTIONS = (
    "name",
    "sha256",
    "selected_sha256",
    "decontaminated_sha256",
    "method",
    "steps",
    "epochs",
    "data",
    "budget",
    "filters",
    "validation",
    "lora",
)
HASHES = ("inputs", "eval_id")
"""Columns of hashes, which tell runs apart where names and options do not."""

TUNING, CHOSEN = "tuning", "tuned."
"""The column with the id of the tuning that chose a run's values, and the beginning of those with the values."""

_NO_OPTIONS_OF: dict[type[BaseModel], tuple[str, ...]] = {
    Evaluation: ("batch_size", "teacher_sha256"),
    Teacher: tuple(WHERE),
    Endpoint: ("logprobs", *WHERE["endpoint"]),  # logprobs are the teacher's top_k
}
_OPTIONS_OF = {Data: "source_options", Budget: "sampler_options"}
_PARTS: tuple[tuple[type[BaseModel], str], ...] = (
    (Student, "student_"),
    (Lora, ""),
    (Teacher, "teacher_"),
    (Endpoint, "teacher_endpoint_"),
    (Stage, ""),
    (Data, ""),
    (Filters, "filter_"),
    (Data, "validation_"),
    (Filters, "validation_filter_"),
    (Budget, "validation_"),
    (Evaluation, "evaluation_"),
    (Data, "evaluation_"),
    (Filters, "evaluation_filter_"),
    (Budget, "evaluation_"),
)
_STAGE = re.compile(r"stage_\d+\.")
_SHA256 = re.compile(r'(?<=[{,])"sha256":"([^"]*)"')
"""A hash in the canonical text of a specification; in a text inside it, quotes have a backslash in front."""
_SCHEDULE = re.compile(r"(stage_\d+\.)?(steps|examples|tokens)")


def option_values(spec: RunSpec) -> dict[str, Any]:
    """Return the options of a run's training that are not default, by name of column.

    >>> stage = {"data": {"source": "lexicon"}, "method": "kd", "steps": 9, "learning_rate": 0.1, "batch_size": 8}
    >>> option_values(RunSpec.parse({"student": {"name": "a"}, "stages": [stage | {"method_options": {"beta": 0.5}}]}))
    {'source': 'lexicon', 'method_options.beta': 0.5, 'batch_size': 8, 'learning_rate': 0.1}
    """
    values = _stages(spec.stages) | _values(spec.student, "student_")
    if spec.student.lora is not None:
        values |= {"lora_r": spec.student.lora.lora_r} | _values(spec.student.lora, "")
    if spec.teacher is not None:
        values |= _values(spec.teacher, "teacher_")
        if spec.teacher.endpoint is not None:
            values |= _values(spec.teacher.endpoint, "teacher_endpoint_")
    return values


def inputs_of(training: str) -> str | None:
    """Return 12 hex digits of the hashes of models and data in a training's canonical text; None where it has none.

    They are those of whole pools: budgets and seeds change none of them.
    """
    found = _SHA256.findall(training)
    return hashlib.sha256("".join(found).encode()).hexdigest()[:12] if found else None


def evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    """Return the options of an evaluation that are not default, by name of column.

    >>> evaluation_values(Evaluation.model_validate({"data": {"source": "lexicon", "split": "test"}, "items": 9}))
    {'evaluation_source': 'lexicon', 'evaluation_split': 'test', 'evaluation_items': 9}
    """
    return _data(evaluation.data, "evaluation_") | _values(evaluation, "evaluation_")


def option_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a table of runs that are options."""
    return [name for name in map(str, frame.columns) if is_option(name)]


def identity_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns in which runs that are averaged must agree: method, models, evaluation, tuning, options."""
    return [name for name in ("method", "student", "teacher", *HASHES, TUNING) if name in frame] + option_columns(frame)


def settings(
    frame: pd.DataFrame, columns: Iterable[str] | None = None, *, defaults: bool = False, tuned: bool = False
) -> list[dict[str, Any]]:
    """Return the values of each run by column, without those that are missing.

    Args:
        frame: a table of runs.
        columns: `identity_columns` where none are given.
        defaults: whether to include values that are the default.
        tuned: whether to include values that a tuning chose. They follow from the rest and may differ between budgets
            and seeds of one arm, so that runs which were tuned alike may be averaged. Otherwise only the ratio of a
            later stage's to the first one's is included, such as "times 0.1".
    """
    names = identity_columns(frame) if columns is None else list(columns)
    values = {name: [_plain(value) for value in frame[name]] for name in names}
    if not tuned:
        values = {name: _not_chosen(name, found, frame) for name, found in values.items()}
    left_out = {name: (None,) if defaults else (None, DEFAULTS.get(name)) for name in names}
    return [
        {name: values[name][row] for name in names if values[name][row] not in left_out[name]}
        for row in range(len(frame))
    ]


def _not_chosen(name: str, values: list[Any], frame: pd.DataFrame) -> list[Any]:
    """Return the values of a column without those that a tuning chose.

    What stays of these in a later stage is how many times the first stage's value it is: tuning changes both alike.
    """
    column, found = _tuned(name, frame), _STAGE.match(name)
    if column is None:
        return values
    first = f"stage_1.{name[found.end() :]}" if found and not _SCHEDULE.fullmatch(name) else name
    others = frame[first].tolist() if first in frame and first != name else [None] * len(values)
    chosen = frame[column].notna().tolist()
    return [
        _times(value, other) if is_chosen else value
        for value, other, is_chosen in zip(values, others, chosen, strict=True)
    ]


def _times(value: Any, first: Any) -> str | None:
    """Return a value as a multiple of the first stage's; None where one of them is no number.

    >>> _times(0.0004, 0.004), _times(0.0004, None)
    ('times 0.1', None)
    """
    numbers = all(isinstance(number, int | float) and number == number for number in (value, first))
    return f"times {value / first:.6g}" if numbers and first else None


def _tuned(name: str, frame: pd.DataFrame) -> str | None:
    """Return the column that holds a value of this option where a tuning chose it; None without such a column."""
    field = _STAGE.sub("", name).removeprefix("method_options.")
    names = (f"{CHOSEN}{same}" for same in ((field, "epochs") if field == "steps" else (field,)))
    return next((column for column in names if column in frame), None)


def configurations(frame: pd.DataFrame, columns: Iterable[str] | None = None) -> pd.Series:
    """Return a text for each run that is the same for runs which may be averaged, and different for all others.

    Args:
        frame: a table of runs.
        columns: `identity_columns` where none are given.
    """
    texts = [json.dumps(values, sort_keys=True, ensure_ascii=False) for values in settings(frame, columns)]
    return pd.Series(texts, index=frame.index, dtype=object)


def schedule_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that may vary with the budget and must agree within one: steps, and the stages' budgets."""
    return [name for name in map(str, frame.columns) if _SCHEDULE.fullmatch(name)]


def fill_defaults(frame: pd.DataFrame) -> None:
    """Write a field's default where a run has it; the column exists since another run has another value."""
    for name in option_columns(frame):
        default = DEFAULTS.get(name)
        part = next(column for prefix, column in _PRESENT.items() if name.startswith(prefix))
        if default is not None and part in frame:
            by_stage = [
                column for column in map(str, frame.columns) if column != name and _STAGE.sub("", column) == name
            ]
            has_default = frame[name].isna() & frame[part].notna() & frame[by_stage].isna().all(axis=1)
            frame[name] = frame[name].mask(has_default, default)


def _stages(stages: tuple[Stage, ...]) -> dict[str, Any]:
    """Return the options of all stages: shared values under the plain name, others under `stage_1.`, `stage_2.`, ..."""
    if len(stages) == 1:
        return _stage(stages[0])
    each = []
    for stage in stages:
        budget = {name: getattr(stage.data.budget, name) for name in ("examples", "tokens")}
        each.append(_stage(stage) | {"steps": stage.steps} | {k: v for k, v in budget.items() if v is not None})
    shared = {name: value for name, value in each[0].items() if all(other.get(name) == value for other in each)}
    apart = {
        f"stage_{number}.{name}": value
        for number, values in enumerate(each, 1)
        for name, value in values.items()
        if name not in shared
    }
    return {name: value for name, value in shared.items() if not _SCHEDULE.fullmatch(name)} | apart


def _stage(stage: Stage) -> dict[str, Any]:
    validation = {} if stage.validation is None else _data(stage.validation, "validation_")
    return _data(stage.data, "") | validation | _values(stage, "")


def _data(data: Data, prefix: str) -> dict[str, Any]:
    """Return the options of a part's data; how much a stage trains on is its budget and no option."""
    budget = _values(data.budget, prefix)
    if not prefix:
        budget = {name: value for name, value in budget.items() if name not in ("examples", "tokens", "seed")}
    filters = {} if data.filters is None else _values(data.filters, f"{prefix}filter_")
    return _values(data, prefix) | filters | budget


def _values(part: BaseModel, prefix: str) -> dict[str, Any]:
    """Return the values of a part that are not default, by name of column; parts inside it are left out."""
    values: dict[str, Any] = {}
    for field, default in _possible(type(part)):
        value = getattr(part, field)
        if value is None or value == default:
            continue
        name, value = _column(type(part), field, prefix), _without_hashes(value)
        if isinstance(value, dict) and field != "teacher":
            values |= {f"{name}.{key}": _comparable(option) for key, option in value.items()}
        else:
            values[name] = _comparable(value)
    return values


@cache
def _possible(part: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """Return the fields of a part that may be options, with their defaults; no value equals that of a required one."""
    return tuple(
        (name, object() if info.is_required() else info.default)
        for name, info in part.model_fields.items()
        if _may_be_option(part, name)
    )


def _may_be_option(part: type[BaseModel], field: str) -> bool:
    return field not in (*_NO_OPTIONS, *_NO_OPTIONS_OF.get(part, ()))


def _column(part: type[BaseModel], field: str, prefix: str) -> str:
    if part is Stage and field == "teacher":
        return "own_teacher"
    return prefix + (_OPTIONS_OF[part] if field == "options" and part in _OPTIONS_OF else field)


def _without_hashes(value: Any) -> Any:
    """Return a part inside a field as plain data; its fields that are default, its hashes and its seed are left out."""
    if isinstance(value, BaseModel):
        plain = value.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
        left_out = ("sha256", "seed", *(WHERE["endpoint"] if isinstance(value, Endpoint) else ()), "device_map")
        return {name: _without_hashes(getattr(value, name)) for name in plain if name not in left_out}
    return [_without_hashes(part) for part in value] if isinstance(value, list | tuple) else value


def _comparable(value: Any) -> Any:
    """Return a value that can be compared and grouped by: lists, mappings, parts and null as JSON text."""
    if isinstance(value, str | int | float):
        return value
    return json.dumps(value, ensure_ascii=False, default=lambda part: part.model_dump(mode="json", exclude_none=True))


def _plain(value: Any) -> Any:
    """Return a table's value as plain data, None where it is missing; a whole number is the same in either type."""
    if value is None or value is pd.NA or value != value:
        return None
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_option(name: str) -> bool:
    """Whether a column of a table of runs is an option."""
    field = _STAGE.sub("", name)
    if field != name and _SCHEDULE.fullmatch(name):
        return True
    return field in DEFAULTS or field.partition(".")[0] in _MAPPINGS


def _defaults() -> dict[str, Any]:
    """Return the default of every column that is named after a field; None where the field has none."""
    fields = [(part, field, prefix) for part, prefix in _PARTS for field in part.model_fields]
    defaults: dict[str, Any] = {"sampler": Budget.model_fields["sampler"].default}
    for part, field, prefix in fields:
        info = part.model_fields[field]
        if _may_be_option(part, field) and not isinstance(info.default, dict):
            without = info.is_required() or info.default is None
            defaults[_column(part, field, prefix)] = None if without else _comparable(info.default)
    return defaults | {"lora_r": None}  # its presence means that a student has adapters


DEFAULTS = _defaults()
_PRESENT = {
    "evaluation_": "evaluation_source",
    "validation_": "validation_source",
    "lora_": "lora_r",
    "student_": "student",
    "teacher_": "teacher",
    "": "method",
}
_MAPPINGS = (
    "code",
    "evaluation_code",
    "method_options",
    "student_random_config",
    *(f"{part}{options}" for part in ("", "validation_", "evaluation_") for options in _OPTIONS_OF.values()),
)
