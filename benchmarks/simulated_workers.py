"""The workers of a batch in virtual time: their code, with tasks in place of notebooks; for `benchmarks.shared_folder`.

simulation = Simulation(folder, cells=100, latency_s=0.01, capacity=5000, seed=0)
with simulation.patched():
    simulation.run(workers=5)
simulation.counted()
"""

import math
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.measurement import ROOT
from benchmarks.virtual_time import WINDOW_S, Clock, Event, Files, Process, Threading, Times
from studykit.batch import work
from studykit.batch.execute import PUT_OFF, WholeFiles
from studykit.batch.grid import Cell
from studykit.files import leases, replacing
from studykit.files.leases import LeaseLost
from studykit.results import status
from studykit.results.cells import add_run, finish_cell, start_cell
from studykit.results.status import Activity, StatusFile

MEAN_S, _SPREAD = 120.0, 0.5
BETWEEN_DEATHS_S = _BETWEEN_STOPS_S = 3600.0
_STOPPED_S, _REPLACED_AFTER_S = 120.0, 60.0
_NOTEBOOK, _WRITES = "x" * 20_000, 4
"""An executed notebook, and how often it is written before and after its run."""
_BUSY_S, _IDLE_S = 2.5, 1.0
"""The longest time between two looks of a worker's loop, in place of 0.2 s; it is resumed when its cell ends."""


class Simulation:
    """A batch, its workers, and what they do.

    Args:
        root: an empty folder.
        cells: their number.
        latency_s: of one operation.
        capacity: operations per second.
        seed: of all random numbers.
    """

    def __init__(self, root: Path, cells: int, latency_s: float, capacity: float, seed: int):
        self.clock, self.random = Clock(), random.Random(seed)
        self.files = Files(self.clock, root, latency_s, capacity)
        study = root / "study"
        notebook = ROOT / "notebooks" / "01_data_size.ipynb"
        self.cells = [Cell(notebook, {"number": n}, study, f"{n:012x}") for n in range(cells)]
        self.seconds = {
            cell.cell_id: self.random.lognormvariate(math.log(MEAN_S) - _SPREAD**2 / 2, _SPREAD) for cell in self.cells
        }
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.takes: list[int] = []
        self.trained_s = self.alive_s = self.idle_s = 0.0
        self.deaths = self.stops = 0
        self._left, self._hosts, self._of_a_status = 0, 0, 0
        self._executors: dict[Process, _Cells] = {}

    def run(self, workers: int) -> None:
        """Run until all workers have ended."""
        for _ in range(workers):
            self._start_worker()
        self.clock.run(until=lambda: self._left == 0)

    def counted(self) -> dict[str, Any]:
        """Return the figures."""
        useful_s = sum(self.seconds[cell] for cell in self.ended)
        return {
            "virtual_s": round(self.clock.now),
            "ideal_s": round(sum(self.seconds.values()) / max(1, self._hosts - self.deaths)),
            "operations_per_s": round(sum(self.files.counts.values()) / self.clock.now, 1),
            "operations_per_cell": {
                label: round(count / len(self.cells), 1) for label, count in sorted(self.files.counts.items())
            },
            "most_operations_per_s": max(self.files.busy.values()) / WINDOW_S,
            "slowest_operation_s": round(self.files.longest_s, 2),
            "most_operations_to_take": max(self.takes),
            "on_files": round(1 - (self.trained_s + self.idle_s) / self.alive_s, 4),
            "idle": round(self.idle_s / self.alive_s, 4),
            "double": round(1 - useful_s / self.trained_s, 4),
            "deaths": self.deaths,
            "stops": self.stops,
            "begun_again": sum(self.begun.values()) - len(self.begun),
            "ended_twice": sum(count > 1 for count in self.ended.values()),
            "not_ended": sum(cell.status() != "done" for cell in self.cells),
        }

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Let the workers' code see the simulation's time, threads, hosts and files."""
        times, threads = Times(self.clock), Threading(self.clock)
        folders = {cell.cell_id: cell.folder for cell in self.cells}
        changes: list[tuple[Any, str, Any]] = [
            (Cell, "folder", property(lambda cell: folders[cell.cell_id])),  # made once, which saves much time
            (leases, "time", times),
            (leases, "threading", threads),
            (leases, "_clocks", _PerProcess(self.clock)),
            (leases, "machine_id", lambda: self.clock.running().process.host),
            (leases, "process_state", lambda pid: ("running", "0")),
            (work, "threading", threads),
            (work, "time", SimpleNamespace(monotonic=times.monotonic, sleep=self._sleep)),
            (work, "take", self._take),
            (work, "random", self.random),
            (work, "ThreadPoolExecutor", _Inline),
            (status, "time", times),
            (status, "replacing", self._replacing),
        ]
        with ExitStack() as stack:
            for module, name, value in changes:
                stack.enter_context(patch.object(module, name, value))
            stack.enter_context(self.files.patched())
            yield

    def _start_worker(self) -> None:
        self._left, self._hosts = self._left + 1, self._hosts + 1
        process = Process(f"host {self._hosts}")
        executor = self._executors[process] = _Cells(self, process)
        self.clock.start(process, lambda: self._work(executor), "taking cells")
        for kind, mean_s in ((self._die, BETWEEN_DEATHS_S), (self._stop, _BETWEEN_STOPS_S)):
            self.clock.at(self.clock.now + self.random.expovariate(1 / mean_s), lambda kind=kind: kind(executor))

    def _work(self, executor: "_Cells") -> None:
        began = self.clock.now
        try:
            work.work(self.cells, executor)
            self._left -= 1
            executor.process.is_dead = True
        finally:
            self.alive_s += self.clock.now - began

    def _die(self, executor: "_Cells") -> None:
        if executor.process.is_dead:
            return
        self.deaths += 1
        for process in (executor.process, *executor.running):
            self.clock.kill(process)
        self.clock.at(self.clock.now + _REPLACED_AFTER_S, self._replace)

    def _replace(self) -> None:
        self._start_worker()
        self._left -= 1  # of the one that died

    def _stop(self, executor: "_Cells") -> None:
        if executor.process.is_dead:
            return
        self.stops += 1
        for process in (executor.process, *executor.running):
            process.stopped_until = self.clock.now + _STOPPED_S
        self.alive_s -= _STOPPED_S
        self.clock.at(self.clock.now + self.random.expovariate(1 / _BETWEEN_STOPS_S), lambda: self._stop(executor))

    def _sleep(self, seconds: float) -> None:
        """Let a worker sleep until its cell ends; the simulation has no time for each of its short looks."""
        executor = self._executors[self.clock.running().process]
        executor.resumed.clear()
        if executor.running:
            executor.resumed.wait(_BUSY_S)
        else:
            executor.resumed.wait(_IDLE_S)
            self.idle_s += _IDLE_S

    @contextmanager
    def _replacing(self, path: Path, *, durable: bool) -> Iterator[Path]:
        """Replace the first status of all; each later one takes the time of as many operations, and writes nothing."""
        task = self.clock.running()
        if not self._of_a_status:
            before = task.operations
            with replacing(path, durable=durable) as temporary:
                yield temporary
            self._of_a_status = task.operations - before
        else:
            yield Path(os.devnull)
            self.files.take_time(self._of_a_status)

    def _take(self, folder: Path) -> leases.Lease | None:
        """Take a cell, and note how many operations that took, with reading before and after whether it is over."""
        task = self.clock.running()
        before = task.operations
        lease = leases.take(folder)
        if lease is not None:
            self.takes.append(task.operations - before + 2)
        return lease


class _Handle:
    """A cell that runs.

    Attributes:
        process: that executes it.
        code: its exit code, once it has ended.
    """

    def __init__(self, process: Process):
        self.process = process
        self.code: int | None = None


class _Cells:
    """The executor of one worker: cells as tasks.

    Args:
        simulation: that they belong to.
        process: the worker.
    """

    def __init__(self, simulation: Simulation, process: Process):
        self.jobs, self.process, self.running = 1, process, set[Process]()
        self.resumed = Event(simulation.clock)
        self._simulation = simulation

    def submit(self, command: Sequence[str], log: Path) -> _Handle:
        """Start a cell on the worker's host."""
        process = Process(self.process.host)
        handle = _Handle(process)
        self.running.add(process)
        self._simulation.clock.start(process, lambda: self._execute(handle, log.parent, command[-1]), "files of cells")
        return handle

    def poll(self, handle: _Handle) -> int | None:
        """Return the exit code, or None while it runs."""
        return handle.code

    def cancel(self, handle: _Handle) -> None:
        """End a cell."""
        clock = self._simulation.clock
        clock.at(clock.now, lambda: clock.kill(handle.process))
        clock.sleep_until(clock.now + 0.1)
        self.running.discard(handle.process)

    def _execute(self, handle: _Handle, folder: Path, token: str) -> None:
        handle.code = self._run(folder, token)
        self.running.discard(handle.process)
        self.resumed.set()

    def _run(self, folder: Path, token: str) -> int:
        """Do what the process of a cell does, and return its exit code."""
        simulation, written = self._simulation, WholeFiles(folder, token)
        simulation.begun[folder.name] += 1
        try:
            start_cell(folder)
            for part in range(2 * _WRITES):
                written.write(_NOTEBOOK, str(folder / "notebook.ipynb"))
                if part == _WRITES - 1:
                    self._train(folder)
            if not leases.is_held_by(folder, token):
                return PUT_OFF
            finish_cell(folder, "done", wall_s=simulation.seconds[folder.name])
        except (LeaseLost, leases.Held):
            return PUT_OFF
        simulation.ended[folder.name] += 1
        return 0

    def _train(self, folder: Path) -> None:
        """Hold a run, and take steps: of a second, or until the next status is due."""
        simulation, clock = self._simulation, self._simulation.clock
        add_run(folder, folder.name)
        lease = leases.take(folder.parents[1] / "runs" / folder.name)
        if lease is None:
            raise leases.Held(folder.name)
        with lease:
            report, task = StatusFile(lease.folder, check=lease.check), clock.running()
            left_s = simulation.seconds[folder.name]
            while left_s > 0:
                label, task.label = task.label, "status of runs"
                report(Activity("training", "steps"), int(simulation.seconds[folder.name] - left_s), 0)
                task.label = label
                step_s = min(max(1.0, report._next_s - clock.now), left_s)
                clock.sleep_until(clock.now + step_s)
                simulation.trained_s += step_s
                left_s -= step_s
            lease.renew()


class _PerProcess:
    """What each process of the simulation knows of the server's clock: the dictionary `leases._clocks`.

    Args:
        clock: of the simulation.
    """

    def __init__(self, clock: Clock):
        self._clock = clock

    def __contains__(self, device: int) -> bool:
        return device in self._clock.running().process.server_times

    def __getitem__(self, device: int) -> tuple[float, float]:
        return self._clock.running().process.server_times[device]

    def __setitem__(self, device: int, measured: tuple[float, float]) -> None:
        self._clock.running().process.server_times[device] = measured


class _Inline:
    """A pool of threads that does its work at once.

    Args:
        threads: would be their number.
    """

    def __init__(self, threads: int):
        self.map = map

    def __enter__(self) -> "_Inline":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left to wait for."""
