"""What the runs of a study are for: their names in comparisons, and which ones are trials of a tuning.

    add_role(study_folder, run_id, Role("human first"))     # a line of results/<study>/arms.jsonl
    read_roles(study_folder)[run_id]                        # [Role("human first"), Role("baseline", tuning="...")]

One run may stand in several comparisons, under another name in each, and may be chosen by a tuning in one and given by
hand in another. The record of a run has the name of the comparison that it was trained for; a record never changes, so
that names which come later are in a separate file.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studykit.files import locked, read_lines

FILE, _LEASE = "arms.jsonl", ".arms"

TUNING = "tuning"
"""The question (`ablation`) of runs that were trained as trials."""

BY_HAND = "by hand"
"""Stands among the tunings of a run that a comparison has without tuning, too."""


@dataclass(frozen=True)
class Role:
    """The part of a run in one comparison.

    Attributes:
        arm: its name there.
        tuning: id of the tuning that chose its settings, or that it is a trial of; None where they were given by hand.
        trial: whether it is a trial, which is compared with other trials of its arm only.
    """

    arm: str
    tuning: str | None = None
    trial: bool = False


def add_role(study_folder: Path, run_id: str, role: Role) -> None:
    """Add the part of a run in a comparison, where it is new; one without a name is none.

    One process at a time adds a line: on a folder that several machines share, two that append may write one place.
    """
    if not role.arm or role in read_roles(study_folder).get(run_id, ()):
        return
    line = {"run_id": run_id} | {name: value for name, value in asdict(role).items() if value}
    with locked(study_folder / _LEASE):
        if role not in read_roles(study_folder).get(run_id, ()):
            with (study_folder / FILE).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_roles(study_folder: Path) -> dict[str, tuple[Role, ...]]:
    """Return the roles of each run, in order of first use; damaged lines are left out."""
    roles: dict[str, dict[Role, None]] = {}
    for line in read_lines(study_folder / FILE)[0]:
        run_id, arm, tuning, trial = (line.get(name) for name in ("run_id", "arm", "tuning", "trial"))
        if isinstance(run_id, str) and isinstance(arm, str) and isinstance(tuning, str | None):
            roles.setdefault(run_id, {})[Role(arm, tuning, trial is True)] = None
    return {run_id: tuple(found) for run_id, found in roles.items()}


def is_trial(roles: Iterable[Role], ablation: str | None) -> bool:
    """Whether a run is a trial and nothing else; one without roles, where it was trained as one."""
    found = list(roles)
    return all(role.trial for role in found) if found else ablation == TUNING


def names_of(first: str | None, roles: Iterable[Role]) -> str:
    """Return the names of a run in comparisons, each once, that of its record first."""
    return ", ".join(dict.fromkeys(name for name in (first, *(role.arm for role in roles)) if name))


def tunings_of(roles: Iterable[Role]) -> str | None:
    """Return the ids of the tunings that chose a run, as a text; None where it was given by hand alone.

    >>> tunings_of([Role("kd"), Role("kd", "0a1b")])
    'by hand, 0a1b'
    """
    compared = [role for role in roles if not role.trial]
    ids: dict[str, Any] = dict.fromkeys(role.tuning or BY_HAND for role in compared)
    return ", ".join(ids) if set(ids) - {BY_HAND} else None
