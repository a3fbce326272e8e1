"""A worker: it takes the next free cell of a batch under a lease, runs it, and takes the next, until none is left.

    work(cells, Local(jobs=2))                               # as many workers as you like, on any machine
    failed = run_batch(cells, Local(jobs=2), on_change=print)        # the same, after failed cells are put back

Workers know each other through the folders of the cells alone: a lease says who runs a cell, a record that it is over.
A cell whose run is held by another process is postponed until that is over; a worker that has lost its lease leaves the
cell to the one that holds it now. Torch-free.
"""

import os
import random
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from studykit.batch import notebooks
from studykit.batch.execute import PUT_OFF
from studykit.batch.grid import Cell
from studykit.executors import Executor
from studykit.files.leases import Lease, LeaseLost, is_held, take
from studykit.results.cells import finish_cell, read_cell, write_cell
from studykit.results.layout import open_study
from studykit.results.record import CellSpec

_POLL_S = 0.2
_FIRST_LOOK_S, _LAST_LOOK_S = 2.0, 30.0
"""Between two looks at cells that others hold: exponential backoff, from the first to the last of these."""

_AT_FIRST_S, _AGAIN_S, _AT_LEAST = 2.0, 0.05, 20
"""Reading whether cells are over, at first and for each count of them: seconds that it may take, and cells that are
read in any case. On a slow disk a large batch is counted as far as it was looked at."""

_MOST_PUT_OFFS = 20
"""Of one cell by one worker, each time after its run had been free; after more of them the cell counts as failed."""

OnChange = Callable[[dict[str, int]], None]
Watch = Callable[[list[Cell]], None]


def run_batch(
    cells: Sequence[Cell],
    executor: Executor,
    *,
    timeout_s: int = 24 * 3600,
    on_change: OnChange = lambda counts: None,
    watch: Watch = lambda running: None,
) -> list[Cell]:
    """Put failed cells back, work until all cells are over, and return those that failed; see `work`."""
    put_back(cells)
    return work(cells, executor, timeout_s=timeout_s, on_change=on_change, watch=watch)


def put_back(cells: Sequence[Cell]) -> None:
    """Remove the records of cells that have failed, so that workers take them again."""
    for cell in cells:
        lease = take(cell.folder) if cell.status() == "failed" else None
        if lease is not None:
            with lease:
                if cell.status() == "failed":
                    (cell.folder / "record.json").unlink()


def work(
    cells: Sequence[Cell],
    executor: Executor,
    *,
    timeout_s: int = 24 * 3600,
    wait: bool = True,
    on_change: OnChange = lambda counts: None,
    watch: Watch = lambda running: None,
) -> list[Cell]:
    """Execute the cells that are neither over nor held by others, and return those that are not done.

    Each cell is a separate process; one that fails or exceeds the timeout is recorded and does not stop the others.
    SIGTERM or an interrupt ends all of them and gives their leases back; the next worker continues them.

    Args:
        cells: from `plan`.
        executor: starts and ends the processes.
        timeout_s: the limit for one cell.
        wait: for cells that others hold, to take them over where their worker dies; without it the work ends when no
            cell is free.
        on_change: called with the numbers of done, failed, running and waiting cells whenever they change.
        watch: called a few times a second with the cells that are running here.
    """
    pool = _Pool(cells, executor, timeout_s)
    with _ending_on_sigterm():
        try:
            while pool.running or (pool.left and (wait or not pool.looked_in_vain)):
                if pool.start() | pool.end():
                    on_change(pool.counts())
                watch([one.cell for one in pool.running.values()])
                time.sleep(_POLL_S)
        finally:
            pool.cancel()
    return [cell for cell in cells if pool.status(cell) != "done" and cell.status() != "done"]


def describe_counts(counts: dict[str, int]) -> str:
    """Return the number of cells in each state that has any.

    >>> describe_counts({"done": 3, "failed": 0, "running": 2, "waiting": 7})
    '3 done, 2 running, 7 waiting'
    """
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack instead of ending the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # what is ending is not interrupted again
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Running:
    cell: Cell
    lease: Lease
    handle: object
    started: float


class _Pool:
    """The cells that run here, and those that are left."""

    def __init__(self, cells: Sequence[Cell], executor: Executor, timeout_s: int):
        self.cells, self._executor, self._timeout_s = cells, executor, timeout_s
        self.running: dict[str, _Running] = {}
        self.looked_in_vain = False
        self._over: dict[str, str] = {}
        self._open = deque(cells)
        self._read_again(_AT_FIRST_S)
        self.left = deque(cell for cell in cells if cell.cell_id not in self._over)
        self._elsewhere: set[str] = set()
        self._run_of: dict[str, Path] = {}
        self._put_offs: Counter[str] = Counter()
        self._next_look, self._look_s = 0.0, _FIRST_LOOK_S

    def start(self) -> bool:
        """Start cells as long as there is room for them and one is free; return whether the counts have changed."""
        changed = False
        while self.left and len(self.running) < self._executor.jobs and time.monotonic() >= self._next_look:
            known = self._elsewhere, len(self.left)
            taken = self._take_next()
            self.looked_in_vain = taken is None
            changed |= known != (self._elsewhere, len(self.left))
            if taken is None:
                self._next_look = time.monotonic() + self._look_s
                self._look_s = min(2 * self._look_s, _LAST_LOOK_S)
                break
            cell, lease = taken
            self._look_s = _FIRST_LOOK_S
            self.running[cell.cell_id] = _Running(cell, lease, self._submit(cell, lease), time.monotonic())
        return changed

    def end(self) -> bool:
        """Give back the cells that have ended; return whether one has."""
        ended = [one for one in self.running.values() if self._has_ended(one)]
        for one in ended:
            one.lease.release()
            del self.running[one.cell.cell_id]
        if ended:  # a cell that waited for one of their runs may be free now
            self._next_look, self.looked_in_vain = 0.0, False
        return bool(ended)

    def cancel(self) -> None:
        """End all that runs, at the same time, and give the leases back."""
        running = list(self.running.values())
        if running:
            with ThreadPoolExecutor(len(running)) as threads:
                list(threads.map(lambda one: self._executor.cancel(one.handle), running))
        for one in running:
            one.lease.release()

    def counts(self) -> dict[str, int]:
        """Return the number of cells in each state, as far as is known; what others hold runs, too."""
        self._read_again(_AGAIN_S)
        held = self.running.keys() | self._elsewhere
        ids = [cell.cell_id for cell in self.cells]
        states = [self._over.get(name, "running" if name in held else "waiting") for name in ids]
        return {state: states.count(state) for state in ("done", "failed", "running", "waiting")}

    def status(self, cell: Cell) -> str:
        """Return a cell's status; it is not read again once the cell is over."""
        status = self._over.get(cell.cell_id) or cell.status()
        if status != "waiting":
            self._over[cell.cell_id] = status
        return status

    def _read_again(self, for_s: float) -> None:
        """Read the statuses of cells that are not known to be over, as many as there is time for, others next time."""
        until = time.monotonic() + for_s
        for number in range(len(self._open)):
            if number >= _AT_LEAST and time.monotonic() > until:
                break
            cell = self._open.popleft()
            if self.status(cell) == "waiting":
                self._open.append(cell)

    def _take_next(self) -> tuple[Cell, Lease] | None:
        """Take the first free cell. Where others are at work, go on anywhere after each cell that they have or had.

        Whether a cell is over is read again once it is held: on a shared disk what was read before may be old.
        """
        tried: list[Cell] = []
        try:
            while self.left:
                cell = self.left.popleft()
                is_over = self.status(cell) != "waiting"
                lease = None if is_over or self._waits(cell) else take(cell.folder)
                if lease is not None and self.status(cell) == "waiting":
                    return cell, lease
                if lease is not None:
                    lease.release()
                elif not is_over:
                    tried.append(cell)
                if tried or self._elsewhere:
                    self.left.rotate(-random.randrange(len(self.left) + 1))
            return None
        finally:
            self._elsewhere = {cell.cell_id for cell in tried}
            self.left.extend(tried)

    def _waits(self, cell: Cell) -> bool:
        """Whether a cell was put off for a run that another process still holds."""
        run = self._run_of.get(cell.cell_id)
        return run is not None and is_held(run)

    def _submit(self, cell: Cell, lease: Lease) -> object:
        open_study(cell.study_folder.parent, cell.study_folder.name)
        spec = CellSpec(
            cell_id=cell.cell_id,
            notebook=cell.notebook.stem,
            notebooks=os.path.relpath(cell.notebook.parent.resolve(), cell.folder.resolve()),
            parameters=cell.parameters,
            timeout_s=self._timeout_s,
            hypothesis=notebooks.hypothesis_of(cell.notebook),
        )
        write_cell(cell.folder, spec)
        command = [sys.executable, "-m", "studykit.batch.execute", str(cell.folder), lease.token]
        return self._executor.submit(command, cell.folder / "log.txt")

    def _has_ended(self, one: _Running) -> bool:
        """Whether a cell has ended; one that left no record, or exceeded the timeout, gets a record with the reason."""
        code = self._executor.poll(one.handle)
        late = time.monotonic() - one.started >= self._timeout_s
        try:
            one.lease.check()
            if code is None and not late:
                return False
            if code is None:
                self._executor.cancel(one.handle)
            if one.cell.status() == "waiting" and code == PUT_OFF and self._put_offs[one.cell.cell_id] < _MOST_PUT_OFFS:
                self._put_off(one.cell)
            elif one.cell.status() == "waiting":
                ended = f"the process ended with exit code {code}"
                reason = f"stopped after {self._timeout_s} s" if code is None else ended
                one.lease.renew()
                finish_cell(one.cell.folder, "failed", wall_s=time.monotonic() - one.started, error=reason)
        except LeaseLost:
            self._executor.cancel(one.handle)
            self.left.append(one.cell)
        return True

    def _put_off(self, cell: Cell) -> None:
        self._put_offs[cell.cell_id] += 1
        with suppress(IndexError):
            self._run_of[cell.cell_id] = cell.study_folder / "runs" / read_cell(cell.folder).runs[-1]
        self.left.append(cell)
