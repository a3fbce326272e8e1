"""Read run folders into one table; tolerant of torn and damaged files, and never silent about them."""

import fcntl
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.files import replacing
from studykit.errors import InputError
from studykit.results.record import SCHEMA, migrate, row
from studykit.results.signals import read_signals
from studykit.scorers import SCORERS

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
_RUN_ID = re.compile(r"[0-9a-f]{12}")


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


def studies(root: str | Path) -> list[Path]:
    """Return the study folders at or directly under a folder, sorted.

    Raises:
        InputError: the folder holds things, but no study.
    """
    root = Path(root)
    if (root / "study.json").is_file():
        return [root]
    if not root.exists():
        return []
    if not root.is_dir():
        raise InputError(f"{root} is not a folder of results")
    found = sorted(p.parent for p in root.glob("*/study.json"))
    if not found and any(child.is_dir() for child in root.iterdir()):
        raise InputError(f"{root} holds no studykit study (no study.json in it or one level below)")
    return found


def metric_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns that are the student's scores: those named like a scorer."""
    return [name for name in SCORERS.names() if name in frame]


def run_folder(study_folder: str | Path, run_id: str) -> Path:
    """Return the folder of a run, refusing anything that is no run id or leads elsewhere.

    Raises:
        InputError: no such run in this study.
    """
    runs = (Path(study_folder) / "runs").resolve()
    folder = runs / run_id
    if not _RUN_ID.fullmatch(run_id) or folder.is_symlink() or not folder.resolve().is_relative_to(runs):
        raise InputError(f"{run_id!r} is not a run id (12 hexadecimal digits)")
    if not folder.is_dir():
        raise InputError(f"no run {run_id} in {study_folder}")
    return folder


def find_run(root: str | Path, run_id: str) -> Path:
    """Return the folder of a run in any study under a folder.

    Raises:
        InputError: no such run.
    """
    for study in studies(root):
        if _RUN_ID.fullmatch(run_id) and (study / "runs" / run_id).is_dir():
            return run_folder(study, run_id)
    raise InputError(f"no run {run_id!r} under {root}")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return a run's final record in today's layout, or None while there is none.

    Raises:
        InputError: not JSON, not ours, or from a newer version.
    """
    file = folder / "record.json"
    try:
        record = _mapping(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): remove the folder and run again") from None
    record = migrate(record, str(file))
    if missing := {"run_id", "status", "spec"} - set(record):
        raise InputError(f"{file} is damaged (it lacks {', '.join(sorted(missing))}): remove the folder and run again")
    return record


def read_spec(folder: Path) -> dict[str, Any] | None:
    """Return what a run was asked to do, also while it has no record; None where the file is missing or damaged."""
    try:
        return _mapping(json.loads((folder / "spec.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def read_items(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Return a run's held-out items and how many damaged lines were left out."""
    return read_lines(folder / "items.jsonl")


def read_metrics(folder: Path) -> tuple[pd.DataFrame, int]:
    """Return a run's training curves, one row per log, and how many damaged lines were left out."""
    lines, damaged = read_lines(folder / "metrics.jsonl")
    return pd.DataFrame(lines), damaged


def read_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the JSON objects of a file and the count of damaged lines.

    An unterminated last line is still being written and is left out, uncounted. A file that is not there has no lines.
    """
    if not file.exists():
        return [], 0
    text = file.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lines, damaged = [], 0
    for line in whole.split("\n")[:-1]:  # splitlines would also split at U+2028 inside a text
        try:
            lines.append(_mapping(json.loads(line)))
        except ValueError:
            damaged += 1
    return lines, damaged


def cells(study_folder: str | Path) -> list[dict[str, Any]]:
    """Return the cells of all batches of a study: parameters, status, run ids, folder."""
    found = []
    for folder in sorted((Path(study_folder) / "cells").glob("*")):
        try:
            cell = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        try:
            cell |= json.loads((folder / "record.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            cell["status"] = "running" if is_locked(folder / "lock") else "stale"
        found.append({**cell, "folder": str(folder)})
    return found


def read_notebook(cell_folder: str | Path) -> list[dict[str, Any]]:
    """Return the cells of a batch cell's executed notebook, texts joined; none while there is no notebook.

    Each has `cell_type`, `source` and, for code, `outputs` in the notebook format's own words.

    Raises:
        InputError: the file is there and is no notebook.
    """
    file = Path(cell_folder) / "notebook.ipynb"
    try:
        found = _mapping(json.loads(file.read_text(encoding="utf-8")))["cells"]
        return [{**cell, "source": _text(cell["source"]), "outputs": _outputs(cell)} for cell in found]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no executed notebook ({error!r}): run its cell again") from None


def read_log(cell_folder: str | Path, last_bytes: int = 20_000) -> str:
    """Return the end of a batch cell's log; empty while there is none."""
    try:
        return (Path(cell_folder) / "log.txt").read_bytes()[-last_bytes:].decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def damaged_records(study_folder: str | Path) -> dict[str, str]:
    """Return the runs whose final record cannot be read, with what is wrong; the index vouches for finished runs."""
    study = Path(study_folder)
    known = {line.get("run_id") for line in read_lines(study / "index.jsonl")[0]}
    found = {}
    for folder in _run_folders(study):
        if folder.name not in known:
            try:
                read_record(folder)
            except InputError as error:
                found[folder.name] = str(error)
    return found


def fingerprint(study_folder: str | Path) -> str:
    """Return a short text that changes when a run or cell of the study starts, ends or dies: a key for caches."""
    folders = [*_run_folders(Path(study_folder)), *sorted((Path(study_folder) / "cells").glob("*/"))]
    seen = [(folder.name, _changed(folder)) for folder in folders]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _changed(folder: Path) -> int | bool:
    """Return when the record was written, or whether somebody is at it."""
    try:
        return (folder / "record.json").stat().st_mtime_ns
    except OSError:
        return is_locked(folder / "lock")


def _run_folders(study: Path) -> list[Path]:
    runs = study / "runs"
    if not runs.is_dir():
        return []
    with os.scandir(runs) as found:  # it knows folders from links without asking about each of thousands
        names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    return [runs / name for name in sorted(names) if _RUN_ID.fullmatch(name)]


def is_locked(lock: Path) -> bool:
    """Whether a living process holds a lock file."""
    try:
        with lock.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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
        for folder in _run_folders(study)
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


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value


def _text(value: str | list[str]) -> str:
    """Join a notebook's text, kept as one text or as lines."""
    return value if isinstance(value, str) else "".join(value)


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a notebook cell's outputs with their texts joined; what is JSON by itself stays."""
    joined = []
    for output in cell.get("outputs", []):
        data = {kind: _text(v) if kind.startswith("text/") else v for kind, v in output.get("data", {}).items()}
        joined.append({**output, "text": _text(output.get("text", "")), "data": data})
    return joined
