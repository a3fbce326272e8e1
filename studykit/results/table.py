"""All runs of a study as a table, and the index that spares reading every record again."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.errors import InputError
from studykit.files import is_locked, read_lines, replacing
from studykit.results.layout import run_folders, studies
from studykit.results.options import fill_defaults, option_columns, option_values
from studykit.results.record import RECORD_SCHEMA, Manifest, RunRecord, read_record, read_spec
from studykit.results.signals import read_signals
from studykit.scorers import SCORERS
from studykit.spec import SCHEMA, RunSpec

_INDEX = [1, RECORD_SCHEMA, SCHEMA]
"""Versions of the lines of `index.jsonl`, of records and of specifications; a line of others is read anew."""

_TODAY = "run_id_today"
"""Of a line: the id that the run's specification has today. That of a run of an older schema is another."""

IDENTITY_COLUMNS = (
    "run_id",
    "study",
    "ablation",
    "method",
    "student",
    "teacher",
    "budget_examples",
    "budget_tokens",
    "seed",
    "status",
    "steps",
)


def load(root: str | Path = "results") -> pd.DataFrame:
    """Return one row per run of a study, or of all studies under a folder.

    Columns: `run_id, study, ablation, method, student, teacher, budget_examples, budget_tokens, seed, status, steps`,
    then the options in which a run differs from the defaults (see `studykit.results.options`), then `seen_examples` and
    `epochs` of runs of one stage, then metrics and costs.
    `status` is `done`, `failed`, `running` or `stale`. A metric that was not measured is missing, never 0. A folder
    that does not exist gives an empty table. A run of an older schema has no row once it has been run again under
    today's id.

    Raises:
        InputError: the folder has files, but no study.
    """
    rows = [line for study in studies(root) for line in _study_rows(study)]
    frame = pd.DataFrame(rows)
    for column in IDENTITY_COLUMNS:
        if column not in frame:
            frame[column] = pd.Series(dtype="object")
    counts = ["budget_examples", "budget_tokens", "seed", "steps"]
    frame[counts] = frame[counts].astype("Int64")
    options = sorted(option_columns(frame))
    for column in options:
        frame[column] = pd.Series([line.get(column) for line in rows], dtype=object)
    fill_defaults(frame)
    for column in options:
        frame[column] = _typed(frame[column])
    order = dict.fromkeys([*IDENTITY_COLUMNS, *options, *frame.columns])
    return frame[list(order)].sort_values(["study", "budget_examples", "method", "seed", "run_id"], ignore_index=True)


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are the student's scores: those named like a scorer."""
    return [name for name in SCORERS.names() if name in frame]


def damaged_records(study_folder: str | Path) -> dict[str, str]:
    """Return the runs whose record cannot be read, with the reason; runs in the index have been read before."""
    study = Path(study_folder)
    indexed = {line.get("run_id") for line in read_lines(study / "index.jsonl")[0]}
    reasons = {}
    for folder in run_folders(study):
        if folder.name not in indexed:
            try:
                read_record(folder)
            except InputError as error:
                reasons[folder.name] = str(error)
    return reasons


def fingerprint(study_folder: str | Path) -> str:
    """Return a short text that changes when a run or cell of the study starts, ends, dies or is measured."""
    folders = [*run_folders(Path(study_folder)), *sorted((Path(study_folder) / "cells").glob("*/"))]
    states = [(folder.name, _record_time(folder)) for folder in folders]
    states += [(file.name, file.stat().st_mtime_ns) for file in sorted((Path(study_folder) / "signals").glob("[!.]*.json"))]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def rebuild_index(study_folder: str | Path) -> int:
    """Delete the index, read every record anew, and return the number of runs."""
    (Path(study_folder) / "index.jsonl").unlink(missing_ok=True)
    return len(_study_rows(Path(study_folder)))


def row(record: RunRecord, study: str) -> dict[str, Any]:
    """Return a run's line of the table: identity, status, options, metrics, cost."""
    return {
        **_described(record.run_id, study, record.status, record.spec, record.data),
        "ablation": record.ablation,
        **option_values(record.spec),
        **_usage(record.data),
        **record.metrics,
        **{f"teacher_{name}": value for name, value in record.teacher_metrics.items()},
        **record.cost,
    }


def _described(
    run_id: str, study: str, status: str, spec: RunSpec, manifests: Iterable[Manifest] = ()
) -> dict[str, Any]:
    """Return the identity columns of a run; its budget is that of its manifests, or the specified one without any."""
    drawn = _distinct((m.examples_sha256, m.examples, m.response_tokens) for m in manifests)
    specified = _distinct((repr(stage.data), stage.data.budget.examples, None) for stage in spec.stages)
    return {
        "run_id": run_id,
        "study": study,
        "ablation": "",
        "method": " > ".join(stage.method for stage in spec.stages),
        "student": spec.student.name,
        "teacher": None if spec.teacher is None else spec.teacher.name,
        "budget_examples": _total(examples for _, examples, _ in drawn or specified),
        "budget_tokens": _total(tokens for _, _, tokens in drawn),
        "seed": spec.seed,
        "status": status,
        "steps": sum(stage.planned_steps for stage in spec.stages),
    }


def _usage(manifests: tuple[Manifest, ...]) -> dict[str, Any]:
    """Return how much of its budget a run of one stage trained on; stages may share examples, whose number is not known."""
    if len(manifests) != 1:
        return {}
    values = {name: getattr(manifests[0], name) for name in ("seen_examples", "epochs")}
    return {name: value for name, value in values.items() if value is not None}


def _study_rows(study: Path) -> list[dict[str, Any]]:
    """Read finished runs from the index and the others from their folders; a changed index is written.

    A finished run never changes, since its id is the hash of its content, so that its line of the index is right as
    long as its record exists.
    """
    index, _ = read_lines(study / "index.jsonl")
    known = {line.get("run_id"): line for line in index if line.pop("schema", None) == _INDEX}
    rows = [
        known[folder.name] if folder.name in known and (folder / "record.json").is_file() else _row(study, folder)
        for folder in run_folders(study)
    ]
    done = [line for line in rows if line["status"] == "done"]
    if {line["run_id"] for line in done} != set(known):
        _write_index(study, done)
    signals = read_signals(study)
    return [line | signals.get(line["run_id"], {}) | {"study": study.name} for line in _without_replaced(rows)]


def _without_replaced(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines without runs of an older schema whose specification is finished under today's id too."""
    done = {line["run_id"] for line in rows if line["status"] == "done"}
    today = [line.get(_TODAY, line["run_id"]) for line in rows]
    left = [line for line, run_id in zip(rows, today, strict=True) if run_id == line["run_id"] or run_id not in done]
    return [{name: value for name, value in line.items() if name != _TODAY} for line in left]


def _write_index(study: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with replacing(study / "index.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in rows:
                stream.write(json.dumps({"schema": _INDEX, **line}, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError:
        return  # a study on a read-only disk is read without an index


def _row(study: Path, folder: Path) -> dict[str, Any]:
    """Read a run's line of the table from its folder; a damaged run has its id and status only."""
    try:
        record = read_record(folder)
        if record is not None:
            return row(record, study.name) | {_TODAY: record.spec.run_id}
        status = "running" if is_locked(folder / "lock") else "stale"
        spec = RunSpec.parse(read_spec(folder) or {})
        return _described(folder.name, study.name, status, spec) | option_values(spec) | {_TODAY: spec.run_id}
    except InputError:
        damaged = (folder / "record.json").exists()
        status = "failed" if damaged else "running" if is_locked(folder / "lock") else "stale"
        return {"run_id": folder.name, "study": study.name, "status": status}


def _distinct(parts: Iterable[tuple[Any, int | None, int | None]]) -> list[tuple[Any, int | None, int | None]]:
    """Return the parts without those whose hash repeats an earlier one: stages on the same examples have one budget."""
    first: dict[Any, tuple[Any, int | None, int | None]] = {}
    for number, part in enumerate(parts):
        first.setdefault(number if part[0] is None else part[0], part)
    return list(first.values())


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
    try:
        return (folder / "record.json").stat().st_mtime_ns
    except OSError:
        return is_locked(folder / "lock")
