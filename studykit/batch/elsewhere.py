"""The workers of a batch on other machines: what would be submitted, submitting it, and following it. Torch-free."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import getfile
from pathlib import Path
from typing import Any

import psutil

from studykit.batch.estimates import note_on_processes
from studykit.batch.grid import Cell
from studykit.batch.overview import Overview
from studykit.batch.work import put_back
from studykit.errors import InputError
from studykit.executors import WorkersElsewhere
from studykit.files.leases import holder

_POLL_S = 2.0
_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")

Estimates = Collection[Mapping[str, float]]
"""For each cell the fields of `studykit.study.estimate.Estimate`."""


class Workers:
    """Workers that an executor starts on other machines.

    Args:
        executor: starts them.
        command: of one worker.
        log: in the results folder; where the executor writes the output.
        cells: that they take.
    """

    def __init__(self, executor: WorkersElsewhere, command: Sequence[str], log: Path, cells: Sequence[Cell]):
        self._executor, self._command, self._log, self._cells = executor, command, log, cells
        self._handle: Any = None

    @property
    def description(self) -> str:
        """How the started workers are named, and ended."""
        return self._executor.describe(self._handle)

    def preview(self, estimates: Estimates) -> str:
        """Return what would be submitted, and the hours that it takes."""
        hours = sum(estimate["seconds"] for estimate in estimates) / 3600
        script = self._executor.script(self._command, self._log)
        workers = f"{self._executor.jobs} workers, about {hours:.2g} hours of their time together"
        if gpus := self._executor.gpus:
            workers += f", {hours * gpus:.2g} GPU-hours"
        return f"{script.rstrip()}\n\n{workers}{note_on_processes()}"

    def check(self, estimates: Estimates = ()) -> None:
        """Refuse what cannot run.

        Raises:
            InputError: what is missing, in one line.
        """
        self._check_folder()
        self._check_engine()
        self._executor.check(max((estimate["memory_bytes"] for estimate in estimates), default=0.0))

    def start(self, estimates: Estimates) -> bool:
        """Put failed cells back and submit the workers; return whether they go on without this process.

        Raises:
            InputError: what cannot run; nothing has been submitted.
        """
        self.check(estimates)
        self._executor.jobs = min(self._executor.jobs, sum(cell.status() != "done" for cell in self._cells))
        self._log.parent.mkdir(parents=True, exist_ok=True)
        put_back(self._cells)
        self._handle = self._executor.submit(self._command, self._log)
        return self._executor.is_detached

    def follow(self, on_change: Callable[[dict[str, int]], None]) -> list[Cell]:
        """Wait until all workers have ended, and return the cells that are not done; an interrupt ends the workers."""
        known: dict[str, int] = {}
        is_over = False
        try:
            while not is_over:
                is_over = self._executor.poll(self._handle) is not None
                if (counts := Overview.of(self._cells).counts()) != known:
                    on_change(counts)
                known = counts
                time.sleep(_POLL_S)
        finally:
            if not is_over:
                self._executor.cancel(self._handle)
        return [cell for cell in self._cells if cell.status() != "done"]

    def _check_engine(self) -> None:
        """Refuse a second engine beside one whose workers hold cells."""
        mine = Path(getfile(type(self._executor))).stem
        holders = (holder(cell.folder) for cell in self._cells)
        other = next((found for found in holders if found and found.engine not in ("", mine)), None)
        if other is not None:
            raise InputError(
                f"executor {mine!r}: {other}, a worker of {other.engine}, holds a cell of this grid, and one engine is "
                f"enough for it: end those workers first, or start more of them with --executor {other.engine}"
            )

    def _check_folder(self) -> None:
        """Refuse a results folder in the memory of this machine."""
        folder = self._log.parent.resolve()
        mounts = {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
        mount = next((str(parent) for parent in (folder, *folder.parents) if str(parent) in mounts), "/")
        if mounts.get(mount) in _IN_MEMORY:
            raise InputError(
                f"{folder} is in the memory of this machine ({mounts[mount]}), where no other machine sees it: "
                "set --results to a folder on a disk that all machines share"
            )
