"""The table of runs: one row per run, tolerant of torn and damaged files, and never silent about them."""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pandas as pd

from studykit.errors import InputError
from studykit.files import is_locked, read_lines, replacing, try_lock, write_json
from studykit.spec import Lora, Part, RunSpec, Stage
from studykit.scorers import SCORERS
from studykit.results.layout import _RUN_ID, run_folders, studies
from studykit.results.record import SCHEMA, read_record, read_spec
from studykit.results.signals import read_signals


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
    "options",
)


_TRAINING = ("lr_scheduler_type", "warmup_ratio", "weight_decay", "max_grad_norm", "bf16")


_ADAPTERS = ("lora_alpha", "lora_dropout", "lora_target_modules")


def load(root: str | Path = "results") -> pd.DataFrame:
    """Return one row per run of a study, or of all studies under a folder.

    Columns: `run_id, study, ablation, method, student, teacher, budget_examples, budget_tokens, seed, status, steps`,
    then metrics and costs. `status` is `done`, `failed`, `running` or `stale`. A metric that was not measured is
    missing, never 0. A folder that does not exist gives an empty table.

    Raises:
        InputError: the folder holds things, but no study.
    """
    rows = [line for study in studies(root) for line in _study_rows(study)]
    frame = pd.DataFrame(rows)
    for column in IDENTITY_COLUMNS:
        if column not in frame:
            frame[column] = pd.Series(dtype="object")
    counts = ["budget_examples", "budget_tokens", "seed", "steps"]
    frame[counts] = frame[counts].astype("Int64")
    order = [*IDENTITY_COLUMNS, *(c for c in frame.columns if c not in IDENTITY_COLUMNS)]
    return frame[order].sort_values(["study", "budget_examples", "method", "seed", "run_id"], ignore_index=True)


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are the student's scores: those named like a scorer."""
    return [name for name in SCORERS.names() if name in frame]


def damaged_records(study_folder: str | Path) -> dict[str, str]:
    """Return the runs whose final record cannot be read, with what is wrong; the index vouches for finished runs."""
    study = Path(study_folder)
    known = {line.get("run_id") for line in read_lines(study / "index.jsonl")[0]}
    found = {}
    for folder in run_folders(study):
        if folder.name not in known:
            try:
                read_record(folder)
            except InputError as error:
                found[folder.name] = str(error)
    return found


def fingerprint(study_folder: str | Path) -> str:
    """Return a short text that changes when a run or cell of the study starts, ends or dies: a key for caches."""
    folders = [*run_folders(Path(study_folder)), *sorted((Path(study_folder) / "cells").glob("*/"))]
    seen = [(folder.name, _record_time(folder)) for folder in folders]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def rebuild_index(study_folder: str | Path) -> int:
    """Throw the index away, read every record anew, and return the number of runs."""
    (Path(study_folder) / "index.jsonl").unlink(missing_ok=True)
    return len(_study_rows(Path(study_folder)))


def _study_rows(study: Path) -> list[dict[str, Any]]:
    """Read finished runs from the index and the rest from their folders; a grown index is put in place.

    A finished run never changes, since its id is its content, so a line of the index needs no second look while the
    record it was read from is there.
    """
    index, _ = read_lines(study / "index.jsonl")
    known = {line.get("run_id"): line for line in index if line.pop("schema", None) == SCHEMA}
    rows = [
        known[folder.name] if folder.name in known and (folder / "record.json").is_file() else _row(study, folder)
        for folder in run_folders(study)
    ]
    done = [line for line in rows if line["status"] == "done"]
    if {line["run_id"] for line in done} != set(known):
        _write_index(study, done)
    signals = read_signals(study)
    return [line | signals.get(line["run_id"], {}) | {"study": study.name} for line in rows]


def _write_index(study: Path, rows: list[dict[str, Any]]) -> None:
    try:
        with replacing(study / "index.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in rows:
                stream.write(json.dumps({"schema": SCHEMA, **line}, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError:
        return  # a study on a read-only disk is read without an index


def _row(study: Path, folder: Path) -> dict[str, Any]:
    try:
        record = read_record(folder)
    except InputError:
        record = {"run_id": folder.name, "status": "failed", "spec": None}
    if record is None:
        status = "running" if is_locked(folder / "lock") else "stale"
        record = {"run_id": folder.name, "status": status, "spec": read_spec(folder)}
    try:
        return row(record, study.name)
    except (KeyError, TypeError, AttributeError):  # a specification that is missing or no longer readable
        return {"run_id": folder.name, "study": study.name, "status": record["status"]}


def row(record: dict[str, Any], study: str) -> dict[str, Any]:
    """Return one line of the table of runs: identity, status, metrics, cost."""
    spec = record["spec"]
    manifests = record.get("data", [])
    stages = spec["stages"]
    asked = [stage["data"].get("budget", {}).get("examples") for stage in _distinct(stages, "data")]
    drawn = _distinct(manifests, "examples_sha256")  # stages on the same examples have one budget
    return {
        "run_id": record["run_id"],
        "study": study,
        "ablation": record.get("ablation", ""),
        "method": " > ".join(stage["method"] for stage in stages),
        "student": spec["student"]["name"],
        "teacher": (spec.get("teacher") or {}).get("name"),
        "budget_examples": _total([m["examples"] for m in drawn] or asked),
        "budget_tokens": _total([m.get("response_tokens") for m in drawn]),
        "seed": spec["seed"],
        "status": record["status"],
        "steps": sum(stage["steps"] for stage in stages),
        "options": _options(spec),
        **record.get("metrics", {}),
        **{f"teacher_{name}": value for name, value in record.get("teacher_metrics", {}).items()},
        **record.get("cost", {}),
    }


def _options(spec: dict[str, Any]) -> str:
    """Return in words what else tells runs of one method apart: runs with other options are not to be averaged."""
    parts: dict[str, Any] = {}
    for number, stage in enumerate(spec["stages"]):
        where = f"stage {number + 1} " if len(spec["stages"]) > 1 else ""
        batch = stage.get("batch_size", 1) * stage.get("gradient_accumulation_steps", 1)
        budget = stage["data"].get("budget", {})
        own = {"lr": stage.get("learning_rate"), "batch": batch, "sampler": budget.get("sampler")}
        own |= {
            "source": stage["data"]["source"],
            **stage["data"].get("options", {}),
            **{f"sampler_{name}": value for name, value in (budget.get("options") or {}).items()},
            **_changed(Stage, stage, _TRAINING),
            **stage.get("method_options", {}),
        }
        parts |= {f"{where}{name}": value for name, value in own.items()}
    if lora := spec["student"].get("lora"):
        parts |= {"lora_r": lora.get("lora_r"), **_changed(Lora, lora, _ADAPTERS)}
    teacher = spec.get("teacher") or {}
    parts |= {f"teacher_{name}": teacher.get(name) for name in ("top_k", "samples", "pruned")}
    parts["test_items"] = (spec.get("evaluation") or {}).get("items")
    return ", ".join(f"{name}={_short(value)}" for name, value in parts.items() if value is not None)


def _distinct(parts: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Return the parts without those whose value repeats an earlier one's; parts without it all stay."""
    kept: list[dict[str, Any]] = []
    for part in parts:
        if part.get(key) is None or all(part[key] != other.get(key) for other in kept):
            kept.append(part)
    return kept


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _total(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _record_time(folder: Path) -> int | bool:
    """Return when the record was written, or whether somebody is at it."""
    try:
        return (folder / "record.json").stat().st_mtime_ns
    except OSError:
        return is_locked(folder / "lock")


def _changed(part: type[Part], values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values that are not their field's default."""
    return {name: values[name] for name in names if name in values and values[name] != part.model_fields[name].default}
