"""Run cells as processes on this machine, each in a session of its own, with its share of the cores."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from studykit import processes

_GRACE_S = 5.0


class Local:
    """A small pool of processes.

    Each gets cores / jobs threads: two processes with two threads each on two cores fight over them and are many
    times slower than with one each.

    Args:
        jobs: cells at a time.
    """

    def __init__(self, jobs: int = 1):
        self.jobs = jobs

    def submit(self, command: Sequence[str], log: Path) -> subprocess.Popen:
        """Start a process in its own session, so that it and all its children can be ended together."""
        threads = str(max(1, (os.cpu_count() or 1) // self.jobs))
        environment = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", **os.environ}
        environment["STUDYKIT_FOLLOW_PARENT"] = str(os.getpid())
        with log.open("ab") as stream:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=environment, start_new_session=True
            )

    def poll(self, handle: subprocess.Popen) -> int | None:
        """Return the exit code, or None while it runs."""
        return handle.poll()

    def cancel(self, handle: subprocess.Popen) -> None:
        """Ask it and all it started to stop, the kernel included, then insist; return once none of them is left."""
        processes.end(handle, _GRACE_S)
