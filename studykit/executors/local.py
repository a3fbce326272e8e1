"""Run cells as processes on this machine, each in a separate session, with an equal share of the cores."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from studykit.errors import InputError
from studykit.executors import _processes
from studykit.results.environment import processes_wanted

_GRACE_S = 30.0
"""For a step of training and a checkpoint; what neither trains nor ignores the signal ends at once."""


class Local:
    """A small pool of processes.

    Each gets cores / jobs threads: two processes with two threads each on two cores fight over them and are many
    times slower than with one each. On a machine with GPUs each gets the GPU with the fewest processes, or several of
    them where a run is computed by several processes.

    Args:
        jobs: the number of cells that run at the same time.

    Raises:
        InputError: fewer GPUs than processes of a run.
    """

    def __init__(self, jobs: int = 1):
        self.jobs, self._processes = jobs, processes_wanted()
        self._gpus = visible_gpus()
        if 0 < len(self._gpus) < self._processes:
            raise InputError(
                f"--processes {self._processes} needs as many GPUs, and {len(self._gpus)} can be seen here"
            )
        self._holders: dict[str, list[subprocess.Popen]] = {gpu: [] for gpu in self._gpus}

    def submit(self, command: Sequence[str], log: Path) -> subprocess.Popen:
        """Start a process in a new session, so that it and all its children can be ended together."""
        environment = {
            "OMP_NUM_THREADS": str(threads_of_job(self.jobs * self._processes)),
            "TOKENIZERS_PARALLELISM": "false",
            **os.environ,
        }
        environment[_processes.PARENT] = str(os.getpid())
        gpus = sorted(self._gpus, key=self._load)[: self._processes]
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        with log.open("ab") as stream:
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment, start_new_session=True
            )
        for gpu in gpus:
            self._holders[gpu].append(started)
        return started

    def _load(self, gpu: str) -> int:
        """Return the number of living processes on a GPU."""
        self._holders[gpu] = [holder for holder in self._holders[gpu] if holder.poll() is None]
        return len(self._holders[gpu])

    def poll(self, handle: subprocess.Popen) -> int | None:
        """Return the exit code, or None while it runs."""
        return handle.poll()

    def cancel(self, handle: subprocess.Popen) -> None:
        """Terminate it and all it started, the kernel included, then kill what is left; return once nothing is."""
        _processes.end(handle, _GRACE_S)


def threads_of_job(jobs: int) -> int:
    """Return the threads that each of several processes gets: an equal share of the cores that this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def visible_gpus() -> list[str]:
    """Return the GPUs to share out: those of CUDA_VISIBLE_DEVICES, else all that nvidia-smi lists."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
