"""What a run is doing now: `status.json` in its folder, replaced about once a second while a process works on it.

    status = StatusFile(run_folder)
    status(Activity("training", "steps", "stage 2 of 2, kd"), done=120, total=565)
    read_status(run_folder).line()    # training (stage 2 of 2, kd): 120 of 565 steps, 0.21 s/step, about 93 s left

Training, teacher and evaluation report to a `Watch` and know no file. The file is gone once the run has a record; one
that a killed process leaves tells how far it was.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from studykit.files import replacing
from studykit.files.leases import is_held
from studykit.results.layout import run_folders
from studykit.results.record import Record

STATUS = "status.json"
_EVERY_S, _SHARE = 1.0, 0.02
"""Seconds from one status to the next at least, and the share of a run's time that writing them may take."""


@dataclass(frozen=True)
class Activity:
    """One kind of work of a run.

    Attributes:
        name: such as `training`.
        unit: plural of what is counted, such as `steps`; empty where nothing can be counted.
        part: which of several, such as `stage 2 of 2, kd`.
    """

    name: str
    unit: str = ""
    part: str = ""


Watch = Callable[[Activity, int, int], None]
"""Called with an activity, the number of its units that are done, and the number of all; with 0, 0 without a unit."""


def unwatched(activity: Activity, done: int, total: int) -> None:
    """Ignore it."""


class Status(Record):
    """`status.json` of a run: what it is doing; there only until the run has a record."""

    activity: str = Field(description="such as `training`, `asking the teacher`, `scoring`")
    part: str = Field(default="", description="which of several, such as `stage 2 of 2, kd`")
    unit: str = Field(default="", description="what is counted: steps, positions, items; empty where nothing is")
    done: int = Field(default=0, description="number of units that are done")
    total: int = Field(default=0, description="number of all units of the activity")
    s_per_unit: float | None = Field(default=None, description="seconds per unit, since the activity began")
    left_s: float | None = Field(default=None, description="seconds until the activity ends, at that pace")
    updated: str = Field(description="UTC, ISO 8601")

    def line(self) -> str:
        """Return it as one line of text.

        >>> Status(activity="scoring", unit="items", done=40, total=100, left_s=12.0, updated="").line()
        'scoring: 40 of 100 items, about 12 s left'
        """
        name = f"{self.activity} ({self.part})" if self.part else self.activity
        if not self.unit:
            return name
        pace = f", {self.s_per_unit:.2g} s/step" if self.s_per_unit and self.unit == "steps" else ""
        left = "" if self.left_s is None else f", {time_left(self.left_s)}"
        return f"{name}: {self._amount()}{pace}{left}"

    @property
    def share(self) -> float:
        """Fraction of the activity that is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def _amount(self) -> str:
        if self.unit == "positions":  # thousands of them: a percentage is easier to read
            return f"{self.share:.0%} of {self.total:,} {self.unit}"
        return f"{self.done:,} of {self.total:,} {self.unit}"


class StatusFile:
    """A `Watch` that keeps `status.json` of a run up to date.

    Args:
        folder: of the run.
        show: called with every status that is written.
        check: called at each step of the work; it raises where this process no longer holds the run.
    """

    def __init__(
        self,
        folder: Path,
        show: Callable[[Status], None] = lambda status: None,
        check: Callable[[], None] = lambda: None,
    ):
        self.file, self._show, self._check = folder / STATUS, show, check
        self._activity: Activity | None = None
        self._started_s = self._next_s = 0.0
        self._first = 0

    def __call__(self, activity: Activity, done: int, total: int) -> None:
        """Write the status, unless one of the same activity was written just before: on a slow disk, a while before."""
        self._check()
        now = time.monotonic()
        if activity != self._activity:
            self._activity, self._started_s, self._first = activity, now, done
        elif now < self._next_s:
            return
        s_per_unit = (now - self._started_s) / (done - self._first) if done > self._first else None
        status = Status(
            activity=activity.name,
            part=activity.part,
            unit=activity.unit,
            done=done,
            total=total,
            s_per_unit=s_per_unit,
            left_s=None if s_per_unit is None else s_per_unit * (total - done),
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with suppress(OSError), replacing(self.file, durable=False) as temporary:  # no run fails for its status
            temporary.write_text(json.dumps(status.to_json()), encoding="utf-8")
        self._next_s = now + max(_EVERY_S, (time.monotonic() - now) / _SHARE)
        self._show(status)


def read_status(folder: Path) -> Status | None:
    """Return what a run is doing, or was doing when it was killed; None where that is not known."""
    try:
        return Status.model_validate_json((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        return None


def running(study_folder: str | Path) -> dict[str, Status]:
    """Return the status of every run of a study that a process works on, by the run's id."""
    folders = [folder for folder in run_folders(Path(study_folder)) if (folder / STATUS).is_file()]
    statuses = {folder.name: read_status(folder) for folder in folders if is_held(folder)}
    return {run_id: status for run_id, status in statuses.items() if status is not None}


def time_left(seconds: float, at_most: float = 0.0) -> str:
    """Return a time to wait in words.

    Args:
        seconds: that are expected.
        at_most: seconds that it may become, if these are more.

    >>> time_left(40), time_left(600), time_left(600, 600), time_left(600, 1200)
    ('about 40 s left', 'about 10 min left', 'about 10 min left', 'about 10 min left, at most 20 min')
    """
    expected, most = _duration(seconds), _duration(max(seconds, at_most))
    return f"about {expected} left" + (f", at most {most}" if most != expected else "")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
