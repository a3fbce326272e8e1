"""Damage that reading does not show: every file of a study compared with the hash that was kept when it was written.

    for damage in verify("results/lexicon"):
        print(damage)                        # <file>: <what is wrong>: <what to do>

A run's record holds the sha256 of its other files, the weights among them, and of itself. A record of a version that
kept fewer hashes is checked for those that it has. Items, curves and whole folders of weights may be left out to save
disk, and are no damage; one file that is missing from a folder is.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from studykit.errors import InputError
from studykit.results.cells import cells
from studykit.results.evaluations import read_evaluations
from studykit.results.index import Line, stored_lines
from studykit.results.layout import is_run_id, run_folders
from studykit.results.record import read_record, read_typed
from studykit.results.signals import read_signals
from studykit.results.table import rows_of
from studykit.results.tuning import TuningRecord, tuning_files

_MAY_BE_LEFT_OUT = ("items.jsonl", "metrics.jsonl")


class Damage(NamedTuple):
    """One damaged file, and what to do about it."""

    file: Path
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}: {self.fix}"


def verify(study_folder: str | Path) -> Iterator[Damage]:
    """Yield the damage of a study: in its runs, its cells, its measured signals, its index."""
    study = Path(study_folder)
    if not (study / "study.json").is_file():
        yield Damage(study / "study.json", "is missing", "the next run of the study writes it again")
    for folder in run_folders(study):
        yield from _verify_run(folder)
    yield from (
        Damage(cell.folder, cell.error or "", "run its batch again")
        for cell in cells(study)
        if cell.spec is None or "is damaged" in (cell.error or "")
    )
    known = read_signals(study)
    for file in sorted((study / "signals").glob("[!.]*.json")):
        if file.stem not in known:
            yield Damage(file, "cannot be read", "remove it and measure the signals again")
    yield from _verify_index(study)


def damaged_files(folder: Path, names: tuple[str, ...] = ("",)) -> list[Damage]:
    """Return the files of a finished run that are not what its record vouches for.

    Args:
        folder: of the run.
        names: beginnings of the files' names, such as `model/`.
    """
    hashes = {name: sha256 for name, sha256 in _hashes(folder).items() if name.startswith(names)}
    return [
        Damage(folder / name, what, f"remove {folder} and run its specification again")
        for name, sha256 in sorted(hashes.items())
        if not _is_left_out(folder / name, folder) and (what := _compare(folder / name, sha256))
    ]


def _verify_run(folder: Path) -> Iterator[Damage]:
    try:
        record = read_record(folder)
    except InputError as error:
        file, fix = folder / "record.json", f"remove {folder} and run its specification again"
        yield Damage(file, _reason(str(error), file), fix)
        return
    if record is not None and record.run_id != folder.name:
        yield Damage(folder, f"its record is that of run {record.run_id}", "give the folder that name")
    yield from damaged_files(folder)
    for file in tuning_files(folder):
        try:
            read_typed(file, TuningRecord)
        except InputError as error:
            fix = "remove it and run the comparison again, which reads the trials"
            yield Damage(file, _reason(str(error), file), fix)
    for one in read_evaluations(folder):
        fix = f"remove {one.folder} and run the specification again"
        if one.record is None and one.error:
            yield Damage(one.folder / "record.json", _reason(one.error, one.folder / "record.json"), fix)
        elif one.folder != folder:
            yield from (damage._replace(fix=fix) for damage in damaged_files(one.folder))


def _reason(error: str, file: Path) -> str:
    """Return the fault that an error names, without the file and the fix, which `Damage` has."""
    return error.removeprefix(f"{file} ").removesuffix(": remove the folder and run again")


def _verify_index(study: Path) -> Iterator[Damage]:
    (_, damaged, _), wrong = stored_lines(study), _differing_lines(study)
    if damaged or wrong:
        names = ", ".join(str(line.get("run_id")) for line in wrong[:3])
        what = f"{damaged + len(wrong)} lines differ from the records" + (f" ({names})" if names else "")
        yield Damage(study / "index.jsonl", what, f"studykit results {study.name} --rebuild")


def _differing_lines(study: Path) -> list[Line]:
    """Return the lines of the index that differ from their runs' records; those of another version are not read."""
    lines, _, _ = stored_lines(study)
    runs = {line["run_id"] for line in lines if is_run_id(line["run_id"])}
    found = {run_id: rows_of(study / "runs" / run_id, study.name) for run_id in runs}
    done = {run_id: rows for run_id, rows in found.items() if all(row["status"] == "done" for row in rows)}
    right = {run_id: json.loads(json.dumps(rows)) for run_id, rows in done.items()}
    return [line for line in lines if line not in right.get(line["run_id"], ())]


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hashes in a record; none where there is no record, or one that cannot be read."""
    try:
        plain: Any = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        return {str(name): str(sha256) for name, sha256 in plain.get("files", {}).items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _is_left_out(file: Path, folder: Path) -> bool:
    of_a_folder = file.parent != folder and not file.parent.exists()
    return not file.exists() and (file.name in _MAY_BE_LEFT_OUT or of_a_folder)


def _compare(file: Path, sha256: str) -> str | None:
    """Return what is wrong with a file, or None."""
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if found == sha256 else "is not what was written"
