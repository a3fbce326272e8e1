"""The index of a study: a line for each finished run and evaluation, which spares reading every record again.

It is derived from the records. A damaged line is passed over, and its run read anew.
"""

import json
import os
from pathlib import Path
from typing import Any

from studykit.files import read_lines, replacing
from studykit.results.evaluations import FOLDER, evaluation_names
from studykit.results.options import HASHES, is_option
from studykit.results.record import RECORD_SCHEMA
from studykit.spec import SCHEMA

_INDEX = [2, RECORD_SCHEMA, SCHEMA]
"""Versions of the lines of `index.jsonl`, of records and of specifications; a line of others is read anew."""

TODAY = "run_id_today"
"""Of a line: the id that the run's specification has today. That of a run of an older schema is another."""

PLACE = "evaluation_folder"
"""Of a line: the name of the evaluation's folder; none for a run without evaluations, or of schema 1 or 2."""

Line = dict[str, Any]
"""One row of the table."""

IDENTITY_COLUMNS = (
    "run_id",
    "eval_id",
    "study",
    "ablation",
    "arm",
    "method",
    "student",
    "teacher",
    "budget_examples",
    "budget_tokens",
    "seed",
    "status",
    "steps",
)


COUNTS = ("budget_examples", "budget_tokens", "seed", "steps")


def read_index(study: Path) -> dict[str, list[Line]]:
    """Return the lines of the index by run id, without those of a run that has a damaged one: it is read anew."""
    index: dict[str, list[Line]] = {}
    damaged = set()
    for line in stored_lines(study):
        index.setdefault(line["run_id"], []).append(line)
        if not _is_whole(line):
            damaged.add(line["run_id"])
    return {run_id: lines for run_id, lines in index.items() if run_id not in damaged}


def stored_lines(study: Path) -> list[Line]:
    """Return the lines of the index that are of today's version and name a run, whole or not."""
    lines = [line for line in read_lines(study / "index.jsonl")[0] if line.pop("schema", None) == _INDEX]
    return [line for line in lines if isinstance(line.get("run_id"), str)]


def _is_whole(line: Line) -> bool:
    """Whether a line has all columns of a finished run, each of its type; columns of no other kind are numbers."""
    texts = {*IDENTITY_COLUMNS, *HASHES, TODAY, PLACE} - set(COUNTS)
    if line.get("status") != "done" or not {*IDENTITY_COLUMNS, TODAY} <= set(line):
        return False
    for name, value in line.items():
        if name in COUNTS:
            fits = value is None or type(value) is int
        elif name in texts:
            fits = isinstance(value, str) or (value is None and name in ("teacher", "eval_id", "arm", PLACE))
        else:
            fits = type(value) in (int, float) or (is_option(name) and isinstance(value, str | bool))
        if not fits:
            return False
    return True


def is_current(folder: str, lines: list[Line]) -> bool:
    """Whether the records of a run and of exactly these evaluations exist."""
    names = {line.get(PLACE) for line in lines} - {None}
    if not os.path.isfile(f"{folder}/record.json") or names != set(evaluation_names(folder)):
        return False
    return all(os.path.isfile(f"{folder}/{FOLDER}/{name}/record.json") for name in names)


def write_index(study: Path, rows: list[Line]) -> None:
    """Put the lines of finished runs in place, unless the disk cannot be written to."""
    try:
        with replacing(study / "index.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in rows:
                stream.write(json.dumps({"schema": _INDEX, **line}, ensure_ascii=False, allow_nan=False) + "\n")
    except OSError:
        return  # a study on a read-only disk is read without an index
