"""Compute a run by several processes of this machine, which live as long as it takes.

row = run_on_processes(2, Job(spec, "scratch", "results", purpose, "full"), show)

Each process imports what it needs anew, so that nothing of this one, such as a GPU's context, is shared. The first
error of any of them ends all, and is raised here. SIGTERM or an interrupt is passed on: the step of training is
finished and a checkpoint saved.
"""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import Empty
from typing import Any

import torch
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage] (documented as public)

from studykit import results
from studykit.data import Inputs
from studykit.errors import Failure, one_line
from studykit.results.cells import add_run, cell_of_kernel
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.study.progress import Show, unshown
from studykit.training import ranks
from studykit.training.stopping import until_stopped

_START, _POLL_S, _GRACE_S = "spawn", 0.2, 60.0
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class Job:
    """What the processes compute: a pinned specification, and the arguments of `run_resolved`."""

    spec: RunSpec
    study: str
    root: str | Path
    purpose: results.Purpose
    keep: str
    report_to: Sequence[str] = ()


def run_on_processes(count: int, job: Job, show: Show) -> dict[str, Any]:
    """Train and score a run by several processes, and return its row.

    Args:
        count: of the processes; each gets a GPU, or an equal share of the cores.
        job: the run.
        show: called with lines on what the main process is doing.

    Raises:
        Failure: a process ended without a word.
        Exception: whatever ended one of them first.
    """
    if cell := cell_of_kernel():
        add_run(cell, job.spec.run_id, job.spec.evaluation[0].eval_id if job.spec.evaluation else None)
        job = replace(job, purpose=replace(job.purpose, wait=False))
    context = multiprocessing.get_context(_START)
    queue = context.Queue()
    store = _store()
    place = (count, store.port)
    processes = [context.Process(target=_work, args=(index, place, job, queue)) for index in range(count)]
    with until_stopped() as is_stopped:
        try:
            for process in processes:
                process.start()
            return _outcome(processes, queue, show, is_stopped)
        except BaseException:
            _end(processes)
            raise


def _outcome(processes: Sequence[Any], queue: Any, show: Show, is_stopped: Any) -> dict[str, Any]:
    """Follow the processes until the main one has the row and all have ended."""
    row, told = None, False
    while True:
        if is_stopped() and not told:
            told = True
            _signal(processes, signal.SIGTERM)
        try:
            kind, content = queue.get(timeout=_POLL_S)
        except Empty:
            codes = [process.exitcode for process in processes]
            if row is not None and not any(code is None for code in codes):
                return row
            if wrong := [(number, code) for number, code in enumerate(codes) if code or (code == 0 and row is None)]:
                raise Failure("process {} of the run ended with exit code {}".format(*wrong[0])) from None
            continue
        if kind == "error":
            raise content
        if kind == "row":
            row = content
        else:
            show(content)


def _end(processes: Sequence[Any]) -> None:
    """End what still runs: with a checkpoint where it trains, at once where it does not end."""
    started = [process for process in processes if process.pid is not None]
    _signal(started, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    while any(process.is_alive() for process in started) and time.monotonic() < deadline:
        if any(process.exitcode is not None for process in started):  # the others wait for it in vain
            deadline = min(deadline, time.monotonic() + 1)
        time.sleep(_POLL_S)
    for process in started:
        process.kill()
        process.join()


def _signal(processes: Sequence[Any], number: int) -> None:
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, number)


def _work(index: int, place: tuple[int, int], job: Job, queue: Any) -> None:
    """Compute the run as one of the processes; say what came of it."""
    count, port = place
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    threads = threads if threads.isdecimal() else str(max(1, torch.get_num_threads() // count))
    torch.set_num_threads(int(threads))
    number = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in number.items()})
    os.environ.update(MASTER_ADDR=_HOST, MASTER_PORT=str(port), OMP_NUM_THREADS=threads)
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE=str(True))  # the store is the parent's; none of these makes its own
    for loopback in [name for _, name in socket.if_nameindex() if name.startswith("lo")][:1]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    from studykit.study.run import run_resolved

    tell = partial(_tell, queue) if index == 0 else unshown
    try:
        ranks.join()
        run = ranks.main_first(lambda: pin(job.spec, Inputs(job.root)))
        how = {"purpose": job.purpose, "keep": job.keep, "report_to": job.report_to}
        row = run_resolved(run, job.study, job.root, **how, show=tell)
    except BaseException as error:
        queue.put(("error", _portable(error)))
    else:
        if index == 0:
            queue.put(("row", row))
    ranks.leave()


def _tell(queue: Any, line: str) -> None:
    queue.put(("line", line))


def _portable(error: BaseException) -> BaseException:
    """Return an error that another process can raise: those of the kit as they are, others by their message."""
    if type(error).__module__.startswith("studykit.") or isinstance(error, FloatingPointError):
        return error
    return Failure(f"{type(error).__name__}: {one_line(error)}")


def _end_with_parent() -> None:
    """End this process once its parent is gone, for any reason."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)  # at once, whatever other threads wait for


def _store() -> TCPStore:
    """Return the store through which the processes meet; it listens on this machine's loopback alone."""
    with socket.socket() as listening:
        listening.bind((_HOST, 0))
        listening.listen()
        port, handle = listening.getsockname()[1], listening.detach()
    return TCPStore(_HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=handle)
