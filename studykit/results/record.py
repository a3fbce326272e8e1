"""Versions of a record, and the step from each to the next.

A reader accepts every older version through `MIGRATIONS` and refuses a newer one clearly. A change of the record's
layout adds one function here and raises `SCHEMA`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.errors import InputError
from studykit.files import json_object, read_lines
from studykit.spec import from_schema_1, is_schema_1

SCHEMA = 2


STATUSES = ("done", "failed", "running", "stale")
"""`running` holds its folder's lock; `stale` holds none and left no record: killed on the way, and resumable."""




def _fields_renamed(record: dict[str, Any]) -> dict[str, Any]:
    """From 1 to 2: fields of the specification have other names; the run keeps its id, which is its folder's name."""
    return record | {"schema": 2, "spec": from_schema_1(record["spec"])}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _fields_renamed}
"""From version n to n + 1."""


def migrate(record: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the record in today's layout.

    Raises:
        InputError: no version, or one newer than this code knows.
    """
    version = record.get("schema")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{where} has no schema version: it was not written by studykit")
    if version > SCHEMA:
        raise InputError(f"{where} has schema {version}, this studykit reads up to {SCHEMA}: update studykit")
    while version < SCHEMA:
        record = MIGRATIONS[version](record)
        version += 1
    return record


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return a run's final record in today's layout, or None while there is none.

    Raises:
        InputError: not JSON, not ours, or from a newer version.
    """
    file = folder / "record.json"
    try:
        record = json_object(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): remove the folder and run again") from None
    if "schema" in record and (missing := {"run_id", "status", "spec"} - set(record)) and record["schema"] in (1, 2):
        raise InputError(f"{file} is damaged (it lacks {', '.join(sorted(missing))}): remove the folder and run again")
    return migrate(record, str(file))


def read_spec(folder: Path) -> dict[str, Any] | None:
    """Return what a run was asked to do, also while it has no record; None where the file is missing or damaged."""
    try:
        plain = json_object(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
    return from_schema_1(plain) if is_schema_1(plain) else plain


def read_items(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Return a run's held-out items and how many damaged lines were left out."""
    return read_lines(folder / "items.jsonl")


def read_metrics(folder: Path) -> tuple[pd.DataFrame, int]:
    """Return a run's training curves, one row per log, and how many damaged lines were left out."""
    lines, damaged = read_lines(folder / "metrics.jsonl")
    return pd.DataFrame(lines), damaged
