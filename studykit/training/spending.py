"""What a stage has cost so far, noted on disk while it is trained: the work of a process that was killed counts too.

    spending = Spending(stage_folder)
    cost.add(**spending.lost(kept))          # what the last process had noted, and no checkpoint kept
    spending.note(cost, "train_s")           # at every step; written at most once a second

What is computed twice since a process was killed is `failed_s` and `failed_student_tokens`, `failed_teacher_tokens`,
... of a cost; its other amounts are those of a run that was never interrupted. What a teacher computed before the first
step is not lost, since it is stored as it is computed: it counts once for each time.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studykit.files import json_object, replacing
from studykit.generation.cost import Cost

_EVERY_S = 1.0
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
        self._file = folder / "spent.json"
        noted = _read(self._file)
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
        """Note what has been spent, if nothing was noted within the last second.

        Args:
            cost: of the stage.
            seconds: the name that the time since the last note is counted under.
            before_training: whether no step has been taken yet, and all of it is kept.
        """
        if time.monotonic() - self._written_s < _EVERY_S:
            return
        cost.add_seconds(seconds)
        self._last = dict(cost)
        if before_training:
            self.prepared = self._last
        self._write(durable=False)

    def follow(
        self, watch: Callable[[int, int], None], cost: Cost, seconds: str, *, before_training: bool = False
    ) -> Callable[[int, int], None]:
        """Return what follows an activity as `watch` does, and notes its cost."""

        def noting(done: int, total: int) -> None:
            self.note(cost, seconds, before_training=before_training)
            watch(done, total)

        return noting

    def _write(self, durable: bool) -> None:
        content = {"attempts": self.attempts, "prepared": self.prepared, "cost": self._last}
        with replacing(self._file, durable=durable) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
        self._written_s = time.monotonic()


def _read(file: Path) -> dict[str, Any]:
    """Return what is noted; nothing where the file is missing or damaged."""
    try:
        return json_object(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
