"""Processes in virtual time that share one folder: what their file operations cost, while no real second passes.

    clock = Clock()
    files = Files(clock, folder, latency_s=0.01, capacity=2000)
    with files.patched():
        clock.start(Process("host 1"), work, "working")
        clock.run()

A task is a function that runs until it sleeps, waits or touches the folder; then the next one runs. `Threading` and
`Times` stand in for the modules `threading` and `time` of the code that is simulated. The folder and its files are
real; an operation below it takes as long as a server with one queue would take: half of the latency on the way, its
turn, and the way back.
"""

import heapq
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import greenlet

_PATCHED = ("stat", "lstat", "listdir", "scandir", "mkdir", "open", "unlink", "replace", "utime", "chmod", "fsync")
WINDOW_S = 10.0
"""In which operations are counted, to find when the server has most to do."""
_START_S = 1.7e9
"""The file server's clock when a simulation begins."""


class Ended(BaseException):
    """Unwinds the tasks of a process that was killed; none of them touches a file any more."""


class Process:
    """What is killed or stopped as a whole.

    Args:
        host: the machine it runs on.
    """

    def __init__(self, host: str):
        self.host, self.is_dead, self.stopped_until = host, False, 0.0
        self.tasks: set[Task] = set()
        self.server_times: dict[int, tuple[float, float]] = {}


class Task:
    """A thread of a process.

    Attributes:
        label: what its file operations are counted as.
        operations: their number.
    """

    def __init__(self, clock: "Clock", process: Process, run: Callable[[], object], label: str):
        self.process, self.label, self.operations, self.turn = process, label, 0, 0
        self.body = greenlet.greenlet(lambda: self._run(run), parent=clock.hub)

    def _run(self, run: Callable[[], object]) -> None:
        self.process.tasks.add(self)
        try:
            run()
        except Ended:
            pass
        finally:
            self.process.tasks.discard(self)


class Clock:
    """The time, and who runs next."""

    def __init__(self) -> None:
        self.now, self.hub = 0.0, greenlet.getcurrent()
        self._queue: list[tuple[float, int, int, Any]] = []
        self._numbers = itertools.count()
        self.current: Task | None = None

    def start(self, process: Process, run: Callable[[], object], label: str) -> Task:
        """Start a task of a process now."""
        task = Task(self, process, run, label)
        self.resume(task, self.now)
        return task

    def at(self, time: float, event: Callable[[], object]) -> None:
        """Call something at a time, outside of all tasks."""
        heapq.heappush(self._queue, (time, next(self._numbers), 0, event))

    def kill(self, process: Process) -> None:
        """End all tasks of a process where they are: an event, and not for a task to do."""
        process.is_dead = True
        for task in list(process.tasks):
            self.current = task
            task.body.throw(Ended)
        self.current = None

    def resume(self, task: Task, at: float) -> None:
        """Let a task that sleeps or waits go on at a time, or earlier where it is resumed again."""
        heapq.heappush(self._queue, (at, next(self._numbers), task.turn, task))

    def sleep_until(self, at: float) -> None:
        """Let others run until a time, or until the current task is resumed."""
        task = self.running()
        self.resume(task, at)
        self.pause()

    def pause(self) -> None:
        """Let others run until the current task is resumed."""
        task = self.running()
        if task.process.is_dead:
            raise Ended
        self.hub.switch()
        self.current = task

    def running(self) -> Task:
        """Return the current task."""
        assert self.current is not None, "nothing of the simulation runs"
        return self.current

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Run tasks in the order of their times, until none is left or something is true."""
        while self._queue and not until():
            at, _, turn, task = heapq.heappop(self._queue)
            if not isinstance(task, Task):
                self.now = at
                task()
                continue
            if turn != task.turn or task.body.dead or task.process.is_dead:
                continue
            if task.process.stopped_until > at:
                self.resume(task, task.process.stopped_until)
                continue
            self.now, self.current = at, task
            task.turn += 1
            task.body.switch()
            self.current = None


class Files:
    """The shared folder.

    Args:
        clock: of the simulation.
        folder: everything below it is on the server.
        latency_s: of one operation on an idle server.
        capacity: operations that the server does in a second.
    """

    def __init__(self, clock: Clock, folder: Path, latency_s: float, capacity: float):
        self._clock, self._prefix = clock, os.path.realpath(folder)
        self._latency_s, self._turn_s = latency_s, 1 / capacity
        self._free_at = 0.0
        self._changed: dict[int, float] = {}
        self.counts: Counter[str] = Counter()
        self.busy: Counter[float] = Counter()
        self.longest_s = 0.0

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Let the operations of Python's `os` and `io.open` below the folder take their time."""
        real = {name: getattr(os, name) for name in (*_PATCHED, "fstat")}
        opened = io.open
        for name in _PATCHED:
            setattr(os, name, self._timed(name, real[name]))
        os.fstat = lambda descriptor: self._with_time(real["fstat"](descriptor))  # type: ignore[assignment]
        io.open = self._timed("open", opened)
        self._real_fstat, self._real_stat = real["fstat"], real["stat"]
        try:
            yield
        finally:
            io.open = opened
            for name, function in real.items():
                setattr(os, name, function)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(target: Any, *arguments: Any, **options: Any) -> Any:
            if self._clock.current is None or not self._is_shared(name, target):
                return function(target, *arguments, **options)
            self.take_time()
            if name == "fsync":
                return None
            result = function(target, *arguments, **options)
            if name == "utime":
                self._changed[self._real_stat(target).st_ino] = self.server_time()
            elif name == "open" and isinstance(result, int):
                self._changed[self._real_fstat(result).st_ino] = self.server_time()
            return result

        return timed

    def _is_shared(self, name: str, target: Any) -> bool:
        if isinstance(target, int):  # a file that is open: opening and reading it are one operation, flushing another
            return name == "fsync"
        return os.fspath(target).startswith(self._prefix)

    def take_time(self, operations: int = 1) -> None:
        """Let the time pass that some operations of the current task take, one after the other."""
        task, now = self._clock.running(), self._clock.now
        if task.process.is_dead:
            raise Ended
        self.counts[task.label] += operations
        self.busy[now // WINDOW_S] += operations
        task.operations += operations
        waits_s = max(0.0, self._free_at - now - self._latency_s / 2)
        self._free_at = max(now + self._latency_s / 2, self._free_at) + operations * self._turn_s
        self.longest_s = max(self.longest_s, waits_s + self._latency_s + self._turn_s)
        self._clock.sleep_until(now + operations * (self._latency_s + self._turn_s + waits_s))

    def server_time(self) -> float:
        """Return the time of the server, which sets the times of files."""
        return _START_S + self._clock.now

    def _with_time(self, real: os.stat_result) -> Any:
        changed = self._changed.get(real.st_ino)
        return real if changed is None else SimpleNamespace(st_mtime=changed, st_ino=real.st_ino)


class Times:
    """Takes the place of the module `time`: all hosts' clocks start at 0, and none is compared with the server's.

    Args:
        clock: of the simulation.
    """

    def __init__(self, clock: Clock):
        self._clock = clock

    def monotonic(self) -> float:
        """Return the seconds since the simulation began."""
        return self._clock.now

    def time(self) -> float:
        """Return the same."""
        return self._clock.now

    def clock_gettime(self, which: int) -> float:
        """Return the same."""
        return self._clock.now

    def sleep(self, seconds: float) -> None:
        """Let others run for some seconds."""
        self._clock.sleep_until(self._clock.now + seconds)


class Threading:
    """Takes the place of the module `threading`.

    Args:
        clock: of the simulation.
    """

    def __init__(self, clock: Clock):
        self._clock = clock

    def Thread(self, target: Callable[[], object], daemon: bool, name: str) -> Any:
        """Return a thread of the current process, which keeps a lease."""
        process = self._clock.running().process
        return SimpleNamespace(start=lambda: self._clock.start(process, target, "heartbeats"))

    def Event(self) -> "Event":
        """Return an event that is not set."""
        return Event(self._clock)

    def Lock(self) -> "Lock":
        """Return a lock that is free."""
        return Lock(self._clock)

    def current_thread(self) -> str:
        """Return no main thread: signals are not simulated."""
        return "a worker"

    def main_thread(self) -> str:
        """Return what no simulated thread is."""
        return "the simulation"


class Event:
    """An event for tasks.

    Args:
        clock: of the simulation.
    """

    def __init__(self, clock: Clock):
        self._clock, self._is_set = clock, False
        self._waiting: list[Task] = []

    def set(self) -> None:
        """Let all go on that wait."""
        self._is_set = True
        for task in self._waiting:
            self._clock.resume(task, self._clock.now)
        self._waiting = []

    def clear(self) -> None:
        """Let the next ones wait again."""
        self._is_set = False

    def wait(self, timeout: float) -> bool:
        """Wait for the event, or some seconds; return whether it is set."""
        if not self._is_set:
            self._waiting.append(task := self._clock.running())
            self._clock.sleep_until(self._clock.now + timeout)
            if task in self._waiting:
                self._waiting.remove(task)
        return self._is_set


class Lock:
    """A lock for tasks; a context manager.

    Args:
        clock: of the simulation.
    """

    def __init__(self, clock: Clock):
        self._clock, self._holder = clock, None
        self._waiting: list[Task] = []

    def __enter__(self) -> None:
        while self._holder is not None:
            self._waiting.append(self._clock.running())
            self._clock.pause()
        self._holder = self._clock.running()

    def __exit__(self, *error: object) -> None:
        self._holder = None
        if self._waiting:
            self._clock.resume(self._waiting.pop(0), self._clock.now)
