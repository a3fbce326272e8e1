"""Where a batch runs, one executor per file.

An executor is a class named like its file (`Local` in `local.py`) with the methods of `Executor`; its keyword
parameters are the options of `studykit batch --executor NAME -o option=value`. It only starts and ends processes: which
cell a worker takes is settled by leases, and whether a cell is done is recorded in its `record.json`.

There are two kinds. `local` starts the process of each cell for the worker that calls it. The others start workers,
`studykit work`, on other machines (`WorkersElsewhere`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from studykit.discovery import Room, check_options

EXECUTORS = Room("studykit.executors", kind="executor")


class Executor(Protocol):
    """What every executor has.

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


@runtime_checkable
class WorkersElsewhere(Executor, Protocol):
    """What an executor has besides that starts workers on other machines; its `submit` starts all of them.

    Attributes:
        is_detached: whether the workers go on without the process that started them.
    """

    is_detached: bool

    @property
    def gpus(self) -> float:
        """GPUs of each worker; 0 where its options name none."""
        ...

    def check(self, memory_bytes: float) -> None:
        """Refuse what cannot run, before anything is submitted.

        Args:
            memory_bytes: that the largest cell needs; 0 where that is not known.

        Raises:
            InputError: what is missing, in one line.
        """
        ...

    def script(self, command: Sequence[str], log: Path) -> str:
        """Return what `submit` submits, as text."""
        ...

    def describe(self, handle: Any) -> str:
        """Return how the workers are named there, and ended."""
        ...


def get_executor(name: str, jobs: int = 1, options: Mapping[str, Any] | None = None) -> Executor:
    """Return an executor with its options checked.

    Raises:
        InputError: an unknown name or option, with the nearest known one, or a value of another type.
    """
    EXECUTORS.check(name)
    check_options("executor", name, EXECUTORS.options(name), options or {})
    return EXECUTORS.member(name)(jobs=jobs, **(options or {}))
