"""The names of runs in comparisons: one run may stand in several, under another name in each.

    add_arm(study_folder, run_id, "human first")     # a line of results/<study>/arms.jsonl
    read_arms(study_folder)[run_id]                  # ("human first", "baseline"), in order of first use

The record of a run has the name of the comparison that it was trained for; a record never changes, so that names which
come later are in a separate file.
"""

import json
from pathlib import Path

from studykit.files import read_lines

FILE = "arms.jsonl"


def add_arm(study_folder: Path, run_id: str, arm: str) -> None:
    """Add the name that a comparison gives to a run, where it is new."""
    if arm and arm not in read_arms(study_folder).get(run_id, ()):
        with (study_folder / FILE).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"run_id": run_id, "arm": arm}, ensure_ascii=False) + "\n")


def read_arms(study_folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the names of each run, in order of first use; damaged lines are left out."""
    names: dict[str, dict[str, None]] = {}
    for line in read_lines(study_folder / FILE)[0]:
        if isinstance(line.get("run_id"), str) and isinstance(line.get("arm"), str):
            names.setdefault(line["run_id"], {})[line["arm"]] = None
    return {run_id: tuple(found) for run_id, found in names.items()}
