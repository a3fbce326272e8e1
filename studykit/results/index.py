"""The index of a study: a line for each finished run and evaluation, which avoids reading every record again.

It is derived from the records. Each line ends in a checksum of its text; where one is wrong, the index is made anew.
"""

import json
import os
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

from studykit.files import replacing
from studykit.results.evaluations import FOLDER
from studykit.results.record import RECORD_SCHEMA
from studykit.spec import SCHEMA

_INDEX = [3, RECORD_SCHEMA, SCHEMA]
"""Versions of the lines of `index.jsonl`, of records and of specifications; an index of others is made anew."""

_CHECKSUM = ', "xxh3": "'
"""Text between the content of a line and the checksum of that content."""

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
    """Return the lines of the index by run id; none where any line is not what was written: the index is made anew."""
    lines, damaged, others = stored_lines(study)
    index: dict[str, list[Line]] = {}
    for line in () if damaged or others else lines:
        index.setdefault(line["run_id"], []).append(line)
    return index


def stored_lines(study: Path) -> tuple[list[Line], int, int]:
    """Return the lines that are what was written, and the numbers of damaged ones and of those of another version."""
    lines, damaged, others = [], 0, 0
    for text in _texts(study):
        body, _, checksum = text.rpartition(_CHECKSUM)
        if checksum == f'{xxh3_64_hexdigest(body.encode())}"}}':
            lines.append(json.loads(body + "}"))
        elif _is_of_another_version(text):
            others += 1
        else:
            damaged += 1
    others += len(lines)
    lines = [line for line in lines if line.pop("schema") == _INDEX]
    return lines, damaged, others - len(lines)


def _texts(study: Path) -> list[str]:
    try:
        text = (study / "index.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.removesuffix("\n").split("\n")  # splitlines would also split at U+2028 inside a text


def _is_of_another_version(text: str) -> bool:
    """Whether a line without the checksum of its text names another version, which had none."""
    try:
        return json.loads(text)["schema"] != _INDEX
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def is_current(folder: str, lines: list[Line], since_ns: int) -> bool:
    """Whether the records of a run and of its evaluations exist and, like the list of these, are older than the index.

    Args:
        folder: of the run.
        lines: of the index.
        since_ns: when the index was written. A record that has been written since is read again, and its seal checked.
    """
    names = {line.get(PLACE) for line in lines} - {None}
    files = [f"{folder}/record.json", *(f"{folder}/{FOLDER}/{name}/record.json" for name in names)]
    listed_ns = modified_ns(f"{folder}/{FOLDER}")  # changes when an evaluation is added or removed
    if listed_ns is not None and listed_ns >= since_ns:
        return False
    return all((written := modified_ns(file)) is not None and written < since_ns for file in files)


def modified_ns(file: str | Path) -> int | None:
    """Return when a file was written; None where there is none."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None


def write_index(study: Path, rows: list[Line]) -> None:
    """Put the lines of finished runs in place, unless the disk cannot be written to."""
    try:
        with replacing(study / "index.jsonl") as temporary, temporary.open("w", encoding="utf-8") as stream:
            for line in rows:
                body = json.dumps({"schema": _INDEX, **line}, ensure_ascii=False, allow_nan=False)[:-1]
                stream.write(f'{body}{_CHECKSUM}{xxh3_64_hexdigest(body.encode())}"}}\n')
    except OSError:
        return  # a study on a read-only disk is read without an index
