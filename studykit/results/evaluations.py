"""The evaluations of a run: their folders, states and items, and which one a table shows by default.

    for stored in read_evaluations(run_folder("results/lexicon", run_id)):
        stored.eval_id, stored.status, stored.record.metrics

A run of schema 1 or 2 has one evaluation in the same files as its training: it is read there, and never rewritten.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from studykit.errors import InputError
from studykit.files import read_lines
from studykit.files.leases import is_held
from studykit.results.curves import has_numbers
from studykit.results.record import EvaluationRecord, read_plain, read_records, read_typed
from studykit.spec import Evaluation

FOLDER = "evaluations"


@dataclass(frozen=True)
class StoredEvaluation:
    """One evaluation of a run, as it is on disk.

    Attributes:
        eval_id: its id.
        folder: with its items; of a run of schema 1 or 2 the run's own folder.
        status: `done`, `failed`, `running` or `stale`.
        evaluation: what is measured; None where the file is damaged.
        record: what was measured; None while it is not done, or where it is damaged.
        error: what failed, or what is damaged.
    """

    eval_id: str
    folder: Path
    status: str
    evaluation: Evaluation | None = None
    record: EvaluationRecord | None = None
    error: str | None = None


def evaluation_folder(run_folder: Path, eval_id: str) -> Path:
    """Return the folder of an evaluation that is made today."""
    return run_folder / FOLDER / eval_id


def evaluation_names(run_folder: str | Path) -> list[str]:
    """Return the names of a run's folders of evaluations; none for a run of schema 1 or 2 that has no second one."""
    try:
        return [name for name in os.listdir(os.path.join(run_folder, FOLDER)) if not name.startswith(".")]
    except OSError:
        return []


def read_evaluations(run_folder: Path) -> list[StoredEvaluation]:
    """Return all evaluations of a run in the order in which they were started; of a damaged one its id and the reason.

    One that was not started follows: it has its turn when the training is done.
    """
    try:
        return evaluations_beside(run_folder, read_records(run_folder)[1])
    except InputError:
        return evaluations_beside(run_folder, None)  # the run itself is shown as damaged


def evaluations_beside(run_folder: Path, before: EvaluationRecord | None) -> list[StoredEvaluation]:
    """Return all evaluations of a run, where the one in its own record, of schema 1 or 2, has been read."""
    found = [_read(run_folder, name) for name in evaluation_names(run_folder) if not before or name != before.eval_id]
    found.sort(key=lambda one: (one.record is None, one.record.started if one.record else _written(one.folder)))
    if before is not None:
        found.insert(0, StoredEvaluation(before.eval_id, run_folder, before.status, before.evaluation, before))
    return found


def find_evaluation(run_folder: Path, eval_id: str | None = None, status: str | None = None) -> StoredEvaluation | None:
    """Return an evaluation of a run by id and status, or the first one of any; None where there is none."""
    found = read_evaluations(run_folder)
    return next((one for one in found if eval_id in (None, one.eval_id) and status in (None, one.status)), None)


def read_items(run_folder: Path, eval_id: str | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return the held-out items of a run and the number of damaged lines, which are left out.

    Args:
        run_folder: of the run.
        eval_id: the evaluation; None for the first one.
    """
    found = find_evaluation(run_folder, eval_id)
    return ([], 0) if found is None else read_item_file(found.folder / "items.jsonl")


def read_item_file(file: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the items of a file and the number of damaged lines, which are left out."""
    lines, damaged = read_lines(file)
    whole = [line for line in lines if _is_item(line)]
    return whole, damaged + len(lines) - len(whole)


def _is_item(line: dict[str, Any]) -> bool:
    """Whether the fields of an item that are there have their types."""
    texts = all(isinstance(line.get(name), str | None) for name in ("prompt", "reference", "answer"))
    scores = line.get("scores", {})
    return isinstance(line.get("id"), str) and texts and isinstance(scores, dict) and has_numbers(scores)


def primary(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run of a table: that of the evaluation which the most runs of the table have.

    Of evaluations that equally many runs have, it is the run's first one, which is the first of its specification.
    """
    counts = frame.groupby("eval_id")["run_id"].nunique()
    common = frame["eval_id"].map(counts).fillna(0).astype(int)
    chosen = common.groupby([frame["study"], frame["run_id"]], sort=False).idxmax()
    return frame.loc[sorted(chosen)]


def _read(run_folder: Path, eval_id: str) -> StoredEvaluation:
    folder, error = evaluation_folder(run_folder, eval_id), None
    try:
        if record := read_typed(folder / "record.json", EvaluationRecord):
            return StoredEvaluation(eval_id, folder, record.status, record.evaluation, record, record.error)
    except InputError as damage:
        error = str(damage)
    try:
        evaluation = read_plain(folder / "evaluation.json", lambda plain: Evaluation.model_validate(plain))
    except InputError as damage:
        return StoredEvaluation(eval_id, folder, "failed", error=error or str(damage))
    status = "failed" if error else "running" if is_held(run_folder) else "stale"
    return StoredEvaluation(eval_id, folder, status, evaluation, error=error)


def _written(folder: Path) -> str:
    """Return when an evaluation was announced, as a text that sorts by time."""
    file = folder / "evaluation.json"
    return f"{file.stat().st_mtime_ns:020d}" if file.is_file() else ""
