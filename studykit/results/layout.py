"""Folders of studies and runs under a results folder; a name that leads out of it is refused."""

import os
import re
from pathlib import Path

from studykit.errors import InputError
from studykit.files import write_json
from studykit.results.archive import unpack
from studykit.results.record import RECORD_SCHEMA

_RUN_ID = re.compile(r"[0-9a-f]{12}")


def open_study(root: str | Path, study: str) -> Path:
    """Return the folder of a study; it is created, with its `study.json`, where it does not exist.

    Raises:
        InputError: a name that is no plain folder name, or a folder with files of another origin.
    """
    folder = check_study(root, study)
    if not (folder / "study.json").exists():
        write_json(folder / "study.json", {"schema": RECORD_SCHEMA, "study": study})
    return folder


def check_study(root: str | Path, study: str) -> Path:
    """Return the folder of a study without creating it.

    Raises:
        InputError: a name that is no plain folder name, or a folder with files of another origin.
    """
    root = Path(root)
    if not study or Path(study).name != study or study.startswith("."):
        raise InputError(f"study name {study!r} must be a plain folder name")
    if root.exists() and not root.is_dir():
        raise InputError(f"{root} is a file: results need a folder")
    folder = root / study
    if is_study(folder):
        unpack(folder)
        return folder
    if folder.exists() and (not folder.is_dir() or any(not file.name.startswith(".") for file in folder.iterdir())):
        raise InputError(f"{folder} exists and is not a studykit study (no study.json): choose another name or folder")
    return folder


def is_study(folder: Path) -> bool:
    """Return whether a folder is a study: by its `study.json`, or where that was lost by its runs and cells.

    The file is written again when the study is opened for the next run.
    """
    if (folder / "study.json").is_file():
        return True
    inside = (child for kind in ("runs", "cells") if (folder / kind).is_dir() for child in (folder / kind).iterdir())
    return any(is_run_id(child.name) and child.is_dir() for child in inside)


def studies(root: str | Path) -> list[Path]:
    """Return the study folders at or directly under a folder, sorted.

    Raises:
        InputError: the folder holds things, but no study.
    """
    root = Path(root)
    if is_study(root):
        unpack(root)
        return [root]
    if not root.exists():
        return []
    if not root.is_dir():
        raise InputError(f"{root} is not a folder of results")
    found = sorted(folder for folder in root.iterdir() if folder.is_dir() and is_study(folder))
    if not found and any(child.is_dir() for child in root.iterdir()):
        raise InputError(f"{root} holds no studykit study (no study.json in it or one level below)")
    for folder in found:
        unpack(folder)
    return found


def run_folder(study_folder: str | Path, run_id: str) -> Path:
    """Return the folder of a run, refusing anything that is no run id or leads elsewhere.

    Raises:
        InputError: no such run in this study.
    """
    unpack(Path(study_folder))
    runs = (Path(study_folder) / "runs").resolve()
    folder = runs / run_id
    if not is_run_id(run_id) or folder.is_symlink() or not folder.resolve().is_relative_to(runs):
        raise InputError(f"{run_id!r} is not a run id (12 hexadecimal digits)")
    if not folder.is_dir():
        raise InputError(f"no run {run_id} in {study_folder}")
    return folder


def is_run_id(name: str) -> bool:
    """Return whether a name is that of a run: 12 hexadecimal digits.

    >>> is_run_id("0123456789ab"), is_run_id("runs")
    (True, False)
    """
    return _RUN_ID.fullmatch(name) is not None


def find_run(root: str | Path, run_id: str) -> Path:
    """Return the folder of a run in any study under a folder.

    Raises:
        InputError: no such run.
    """
    for study in studies(root):
        if is_run_id(run_id) and (study / "runs" / run_id).is_dir():
            return run_folder(study, run_id)
    raise InputError(f"no run {run_id!r} under {root}")


def run_folders(study: Path) -> list[Path]:
    """Return the folders of all runs of a study, by id; links are passed over."""
    unpack(study)
    runs = study / "runs"
    if not runs.is_dir():
        return []
    with os.scandir(runs) as found:  # tells folders from links without one call per folder
        names = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    return [runs / name for name in sorted(names) if is_run_id(name)]
