"""Where a notebook runs, one place per file. The unit is one process that runs one cell of a batch.

An executor is a class named like its file (`Local` in `local.py`) with the methods of `Executor`. It only places
processes; whether a cell is done is read from the cell's own `record.json`, never from the executor.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from studykit.discovery import Room

EXECUTORS = Room("studykit.executors", kind="executor")


class Executor(Protocol):
    """What a batch asks of a place to run.

    Attributes:
        jobs: cells at a time.
    """

    jobs: int

    def submit(self, command: Sequence[str], log: Path) -> object:
        """Start a command whose output goes to `log`; return a handle."""
        ...

    def poll(self, handle: Any) -> int | None:
        """Return the exit code, or None while it runs."""
        ...

    def cancel(self, handle: Any) -> None:
        """End it and everything it started, and wait until that is so."""
        ...
