"""What a stage has cost so far, noted on disk while it is trained: the work of a process that was killed counts too.

An evaluation notes its seconds in the same way.

    spending = Spending(stage_folder)
    cost.add(**spending.lost(kept))          # what the last process had noted, and no checkpoint kept
    spending.note(cost, "train_s")           # at every step

What is computed twice since a process was killed is `failed_s` and `failed_student_tokens`, `failed_teacher_tokens`,
... of a cost; its other amounts are those of a run that was never interrupted. What a teacher computed before the first
step is not lost, since it is stored as it is computed: it counts once for each time.

`spent.json` is replaced at most once a second, and is whole whatever happens. What came since is written over
`spent-since.json` at every step, in place, which takes some twenty microseconds: what is written there outlives its
process, but not its machine, and is left out where it cannot be read.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studykit.files import json_object, replacing
from studykit.generation.cost import Cost

_EVERY_S = 1.0
_LENGTH = 4096
"""Bytes that hold all amounts of a cost, more than once."""
_FAILED = "failed_"


class Spending:
    """The notes of a stage's cost.

    Args:
        folder: of the stage's checkpoints.

    Attributes:
        attempts: number of processes that worked on the stage, this one included.
        prepared: what was spent before the first step, by all processes until now; None where nothing is noted.
    """

    def __init__(self, folder: Path):
        self._file, self._since_file = folder / "spent.json", folder / "spent-since.json"
        self._since: int | None = None
        noted, since = _read(self._file), _read(self._since_file)
        if since.get("attempts") == noted.get("attempts") and _amount(since) > _amount(noted):
            noted = since
        self.attempts: int = noted.get("attempts", 0) + 1
        self.prepared: dict[str, float] | None = noted.get("prepared")
        self._last: dict[str, float] = noted.get("cost", {})
        self._written_s = float("-inf")

    def lost(self, kept: Mapping[str, float]) -> dict[str, float]:
        """Return what the last process had spent beyond what was kept of it, under the names of failed work.

        Args:
            kept: the cost in the checkpoint that training goes on from, or without one `prepared`.

        >>> spending = Spending(Path("absent"))
        >>> spending._last = {"train_s": 9.0, "student_tokens": 80, "failed_s": 2.0}
        >>> spending.lost({"train_s": 6.0, "student_tokens": 80})
        {'failed_s': 5.0}
        """
        lost: dict[str, float] = {}
        for name, amount in self._last.items():
            if (more := amount - kept.get(name, 0)) > 0:
                name = f"{_FAILED}s" if name.endswith("_s") else _FAILED + name.removeprefix(_FAILED)
                lost[name] = lost.get(name, 0) + more
        return lost

    def begin(self, prepared: Mapping[str, float] | None = None) -> None:
        """Count this process, and keep for good what it has spent before the first step."""
        if prepared is not None:
            self.prepared = self._last = dict(prepared)
        self._write(durable=True)

    def note(self, cost: Cost, seconds: str, *, before_training: bool = False) -> None:
        """Note what has been spent.

        Args:
            cost: of the stage.
            seconds: the name that the time since the last note is counted under.
            before_training: whether no step has been taken yet, and all of it is kept.
        """
        cost.add_seconds(seconds)
        self._last = dict(cost)
        if before_training:
            self.prepared = self._last
        if time.monotonic() - self._written_s >= _EVERY_S:
            self._write(durable=False)
        else:
            self._write_over()

    def follow(
        self, watch: Callable[[int, int], None], cost: Cost, seconds: str, *, before_training: bool = False
    ) -> Callable[[int, int], None]:
        """Return what follows an activity as `watch` does, and notes its cost, unless that raises.

        A process that was stopped and has lost its run learns of it there, and writes nothing more into its folder.
        """

        def noting(done: int, total: int) -> None:
            watch(done, total)
            self.note(cost, seconds, before_training=before_training)

        return noting

    def close(self) -> None:
        """End the notes of this process."""
        if self._since is not None:
            os.close(self._since)
            self._since = None

    def remove(self) -> None:
        """Remove the notes: the work is done, and its cost recorded."""
        self.close()
        for file in (self._file, self._since_file):
            file.unlink(missing_ok=True)

    def _write(self, durable: bool) -> None:
        with replacing(self._file, durable=durable) as temporary:
            temporary.write_text(self._content(), encoding="utf-8")
        self._written_s = time.monotonic()

    def _write_over(self) -> None:
        if self._since is None:
            self._since = os.open(self._since_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        content = self._content().encode()
        os.pwrite(self._since, content.ljust(_LENGTH), 0)  # blanks over the rest of what was longer

    def _content(self) -> str:
        return json.dumps({"attempts": self.attempts, "prepared": self.prepared, "cost": self._last})


def _read(file: Path) -> dict[str, Any]:
    """Return what is noted; nothing where the file is missing or damaged."""
    try:
        return json_object(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _amount(noted: Mapping[str, Any]) -> float:
    """Return a number that grows with all that is spent."""
    return sum(noted.get("cost", {}).values())
