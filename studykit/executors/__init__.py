"""Where a notebook runs, one executor per file. The unit is one process that runs one cell of a batch.

An executor is a class named like its file (`Local` in `local.py`) with the methods of `Executor`. It only starts and
ends processes; whether a cell is done is recorded in the cell's `record.json`, never in the executor.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from studykit.discovery import Room

EXECUTORS = Room("studykit.executors", kind="executor")


class Executor(Protocol):
    """What a batch needs of an executor.

    Attributes:
        jobs: the number of cells that run at the same time.
    """

    jobs: int

    def submit(self, command: Sequence[str], log: Path) -> object:
        """Start a command whose output goes to `log`; return a handle."""
        ...

    def poll(self, handle: Any) -> int | None:
        """Return the exit code, or None while it runs."""
        ...

    def cancel(self, handle: Any) -> None:
        """End the command and everything it started, and return once all of it has ended."""
        ...
