"""All runs of a study and their evaluations as a table, and the index, which avoids reading every record again."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.errors import InputError
from studykit.files.leases import is_held
from studykit.results.arms import read_roles
from studykit.results.evaluations import (
    FOLDER,
    StoredEvaluation,
    evaluation_names,
    evaluations_beside,
    read_evaluations,
)
from studykit.results.index import (
    COUNTS,
    IDENTITY_COLUMNS,
    PLACE,
    TODAY,
    Line,
    is_current,
    modified_ns,
    read_index,
    write_index,
)
from studykit.results.layout import run_folders, studies
from studykit.results.options import (
    evaluation_values,
    fill_defaults,
    inputs_of,
    option_columns,
    option_values,
)
from studykit.results.record import (
    EvaluationRecord,
    Manifest,
    RunRecord,
    read_records,
    read_spec,
)
from studykit.results.signals import read_signals
from studykit.results.tuning import columns_in_comparisons
from studykit.scorers import SCORERS
from studykit.spec import RunSpec, Stage, hash_id


def load(root: str | Path = "results", *, trials: bool = False) -> pd.DataFrame:
    """Return one row per run and evaluation of a study, or of all studies under a folder.

    Trials of a tuning are left out, so that nothing is averaged with them; with `trials` they are there, and the column
    `trial` tells them. Runs whose settings a tuning chose have the columns of `TuningRecord.columns`.

    Columns: `run_id, eval_id, study, ablation, arm, method, student, teacher, budget_examples, budget_tokens, seed,
    status, steps`, then the options in which a run differs from the defaults (see `studykit.results.options`), then
    `seen_examples` and `epochs` of runs of one stage, `items_trained_on` (held-out items among the examples of the
    budgets), then metrics and costs; `gpu_hours` or `processor_hours` are those of training and evaluation together. A
    run without an evaluation has one row, without `eval_id` and metrics; `primary` keeps one row per run. `arm` is its
    name in a comparison; names that later comparisons gave it follow after a comma.
    `status` is `done`, `failed`, `running` or `stale`. A metric that was not measured is missing, never 0. A folder
    that does not exist gives an empty table. A run of an older schema has no row once it has been run again under
    today's id.

    Raises:
        InputError: the folder has files, but no study.
    """
    rows = [line for study in studies(root) for line in _study_rows(study) if trials or not line.get("trial")]
    frame = pd.DataFrame(rows)
    for column in IDENTITY_COLUMNS:
        if column not in frame:
            frame[column] = pd.Series(dtype="object")
    frame[list(COUNTS)] = frame[list(COUNTS)].astype("Int64")
    options = sorted(option_columns(frame))
    for column in options:
        frame[column] = pd.Series([line.get(column) for line in rows], dtype=object)
    fill_defaults(frame)
    for column in options:
        frame[column] = _typed(frame[column])
    order = dict.fromkeys([*IDENTITY_COLUMNS, *options, *frame.columns])
    by = ["study", "budget_examples", "method", "seed", "run_id"]
    return frame[list(order)].sort_values(by, ignore_index=True, kind="stable")  # evaluations stay in their order


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are the student's scores: those named like a scorer."""
    return [name for name in SCORERS.names() if name in frame]


def damaged_records(study_folder: str | Path) -> dict[str, str]:
    """Return the runs whose record or specification, or that of an evaluation, cannot be read, with the reason.

    Runs in the index have been read before.
    """
    study = Path(study_folder)
    indexed = read_index(study)
    reasons = {}
    for folder in run_folders(study):
        if folder.name not in indexed:
            try:
                if _records_of(folder)[0] is None and (folder / "spec.json").exists():
                    _stored_spec(folder)
            except InputError as error:
                reasons[folder.name] = str(error)
            damaged = [one for one in read_evaluations(folder) if one.record is None and one.error]
            reasons |= {f"{folder.name}/{one.eval_id}": str(one.error) for one in damaged}
    return reasons


def fingerprint(study_folder: str | Path) -> str:
    """Return a short text that changes when a run, evaluation or cell starts, ends, dies or is measured."""
    study = Path(study_folder)
    states: list[Any] = [(folder.name, _record_time(folder)) for folder in (study / "cells").glob("*/")]
    for folder in run_folders(study):
        states.append((folder.name, _record_time(folder)))
        states += [
            (folder.name, name, modified_ns(f"{folder}/{FOLDER}/{name}/record.json"))
            for name in evaluation_names(folder)
        ]
    files = [*(study / "signals").glob("[!.]*.json"), *study.glob("arms.jsonl")]
    states += [(file.name, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(sorted(states, key=repr)).encode()).hexdigest()[:16]


def rebuild_index(study_folder: str | Path) -> int:
    """Delete the index, read every record anew, and return the number of runs."""
    (Path(study_folder) / "index.jsonl").unlink(missing_ok=True)
    return len({line["run_id"] for line in _study_rows(Path(study_folder))})


def rows_of(folder: Path, study: str) -> list[Line]:
    """Return the lines of a run: one for each of its evaluations, or a single one without any.

    A line has identity, status, options, metrics and cost; that of a damaged run has its id and status only.
    """
    before = None
    try:
        record, before = _records_of(folder)
        if record is not None:
            line = row(record, study)
        else:
            spec = _stored_spec(folder)
            status = "running" if is_held(folder) else "stale"
            line = _described(folder.name, study, status, spec) | option_values(spec)
    except InputError:
        damaged = (folder / "record.json").exists()
        status = "failed" if damaged else "running" if is_held(folder) else "stale"
        line = {"run_id": folder.name, "study": study, "status": status}
    return [
        line | measured | _hours(line, measured)
        for measured in (_measured(one, line["status"], folder) for one in evaluations_beside(folder, before))
    ] or [line]


def run_row(folder: Path, study: str, eval_id: str | None = None) -> Line:
    """Return the line of a run, with what one of its evaluations measured."""
    lines = rows_of(folder, study)
    line = next((line for line in lines if line.get("eval_id") == eval_id), lines[0])
    return {name: value for name, value in line.items() if name not in (TODAY, PLACE)}


def row(record: RunRecord, study: str) -> Line:
    """Return what a run's lines have in common: identity, status, options of its training, and its cost."""
    cost = {name: value for name, value in record.cost.items() if name not in IDENTITY_COLUMNS}
    return {
        **_described(record.run_id, study, record.status, record.spec, record.data),
        "ablation": record.ablation,
        "arm": record.arm,
        **option_values(record.spec),
        **_usage(record.data),
        **cost,
    }


def _measured(stored: StoredEvaluation, status_of_run: str, folder: Path) -> Line:
    """Return what an evaluation adds to a run's line; while the run is not trained, its status is the run's."""
    line: Line = {"eval_id": stored.eval_id, PLACE: None if stored.folder == folder else stored.eval_id}
    if status_of_run == "done":
        line["status"] = stored.status
    if stored.evaluation is not None:
        line |= evaluation_values(stored.evaluation)
    if stored.record is not None:
        teacher = {f"teacher_{name}": value for name, value in stored.record.teacher_metrics.items()}
        measured = _items_trained_on(stored.record) | stored.record.metrics | teacher | stored.record.cost
        line = {name: value for name, value in measured.items() if name not in IDENTITY_COLUMNS} | line
    return line


def _hours(run: Line, measured: Line) -> Line:
    """Return the hours of GPU or processor of a training and of one of its evaluations together."""
    names = [name for name in ("gpu_hours", "processor_hours") if name in run and name in measured]
    return {name: round(run[name] + measured[name], 6) for name in names}


def _items_trained_on(record: EvaluationRecord) -> Line:
    """Return the number of held-out items that were trained on, near duplicates included; other answers are not."""
    counts = record.items_trained_on
    return {} if counts is None else {"items_trained_on": counts.exact + counts.normalised + counts.near}


def _records_of(folder: Path) -> tuple[RunRecord | None, EvaluationRecord | None]:
    """Return the record of the run that a folder is named after, and that of an evaluation in the same file.

    Raises:
        InputError: it cannot be read, or is of another run.
    """
    record, before = read_records(folder)
    if record is not None and record.run_id != folder.name:
        what = f"{folder / 'record.json'} is damaged (it is of run {record.run_id!r:.20})"
        raise InputError(f"{what}: remove the folder and run again")
    return record, before


def _stored_spec(folder: Path) -> RunSpec:
    """Return the specification of a run without a record.

    Raises:
        InputError: there is none, or a damaged one.
    """
    try:
        return RunSpec.parse(read_spec(folder) or {})
    except InputError as error:
        raise InputError(f"{folder / 'spec.json'} is damaged ({error}): remove the folder and run again") from None


def _described(
    run_id: str, study: str, status: str, spec: RunSpec, manifests: Iterable[Manifest] = ()
) -> dict[str, Any]:
    """Return the identity columns of a run; its budget is that of its manifests, or the specified one without any."""
    training = spec.training.canonical()
    rankings = [_ranking(stage) for stage in spec.stages] if len(spec.stages) > 1 else [""]
    drawn = _largest(zip(rankings, manifests, strict=False))
    specified = _largest(
        (ranking, Manifest(examples=stage.data.budget.examples))
        for ranking, stage in zip(rankings, spec.stages, strict=True)
    )
    return {
        "run_id": run_id,
        "eval_id": None,
        "study": study,
        "ablation": "",
        "arm": "",
        "method": " > ".join(stage.label for stage in spec.stages),
        "student": spec.student.name,
        "teacher": _teachers(spec),
        "budget_examples": _total(m.examples for m in drawn or specified),
        "budget_tokens": _total(m.response_tokens for m in drawn),
        "seed": spec.seed,
        "status": status,
        "steps": sum(stage.planned_steps for stage in spec.stages),
        "inputs": inputs_of(training),
        TODAY: hash_id(training),
    }


def _teachers(spec: RunSpec) -> str | None:
    """Return the teacher's name; where stages have their own, those of all stages in their order, each once."""
    each = [stage.teacher or spec.teacher for stage in spec.stages]
    return " > ".join(dict.fromkeys(teacher.name for teacher in each if teacher is not None)) or None


def _usage(manifests: tuple[Manifest, ...]) -> Line:
    """Return how much of its budget a run of one stage trained on; stages may share examples in unknown number."""
    if len(manifests) != 1:
        return {}
    values = {name: getattr(manifests[0], name) for name in ("seen_examples", "epochs", "best_step")}
    return {name: value for name, value in values.items() if value is not None}


def _study_rows(study: Path) -> list[Line]:
    """Read finished runs from the index and the others from their folders; a changed index is written.

    A finished run or evaluation never changes, since its id is the hash of its content, so that its line of the index
    is right as long as its record exists and is older.
    """
    index, since_ns = read_index(study), modified_ns(study / "index.jsonl") or 0
    runs, changed = [], False
    for folder in run_folders(study):
        known = index.pop(folder.name, [])
        current = bool(known) and is_current(str(folder), known, since_ns)
        runs.append(known if current else rows_of(folder, study.name))
        changed |= not current and (bool(known) or _is_done(runs[-1]))
    if changed or index:
        write_index(study, [line for lines in runs if _is_done(lines) for line in lines])
    signals, roles = read_signals(study), read_roles(study)
    rows = _without_replaced([line for lines in runs for line in lines])
    folder = study / "runs"
    for line in rows:
        line.update(signals.get(line["run_id"], {}), study=study.name)
        line.update(columns_in_comparisons(folder, line, roles.get(line["run_id"], ())))
        line.pop(TODAY, None)
        line.pop(PLACE, None)
    return rows


def _is_done(lines: list[Line]) -> bool:
    return all(line["status"] == "done" for line in lines)


def _without_replaced(rows: list[Line]) -> list[Line]:
    """Return the lines without those of an older schema that are finished under today's id too."""
    done = {(line["run_id"], line.get("eval_id")) for line in rows if line["status"] == "done"}
    return [
        line
        for line in rows
        if (today := line.get(TODAY, line["run_id"])) == line["run_id"] or (today, line.get("eval_id")) not in done
    ]


def _ranking(stage: Stage) -> str:
    """Return a text that is the same for stages whose budgets are nested: prefixes of one ranking of one pool."""
    nested = stage.data.budget.model_copy(update={"examples": None, "tokens": None})
    pool = stage.data.model_copy(update={"budget": nested}).model_dump_json()
    return f"{pool} {stage.exclude} {stage.mix}"


def _largest(parts: Iterable[tuple[str, Manifest]]) -> list[Manifest]:
    """Return the largest budget of each ranking, and one of those that hold the same examples: what stages share is one
    budget."""
    largest: dict[str, Manifest] = {}
    for ranking, manifest in parts:
        key = next((k for k, m in largest.items() if m.examples_sha256 == (manifest.examples_sha256 or "")), ranking)
        if key not in largest or (manifest.examples or 0) > (largest[key].examples or 0):
            largest[key] = manifest
    return list(largest.values())


def _total(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _typed(column: pd.Series) -> pd.Series:
    """Return a column of numbers with a type of numbers; missing ones do not turn counts into floats."""
    types = {type(value) for value in column.dropna()}
    if types == {int}:
        return column.astype("Int64")
    return column.astype(float) if types and types <= {int, float} else column


def _record_time(folder: Path) -> int | bool:
    """Return when the record was written; without a record, whether a process works in the folder."""
    return modified_ns(folder / "record.json") or is_held(folder)
