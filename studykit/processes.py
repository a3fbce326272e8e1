"""End a process and everything it started, in whichever session or process group that lives.

A notebook's kernel leads a session of its own, so the group of the process that opened it does not hold it.
"""

import contextlib
import os
import signal
import subprocess
import time

import psutil

_POLL_S = 0.05


def end(process: subprocess.Popen, grace_s: float) -> None:
    """Ask a process and all it started to stop, insist after a while, and return once none of them is left."""
    left: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        left = signal_groups(left | groups_of(process.pid), number)
        while left and time.monotonic() < deadline:
            process.poll()  # reap it, or its group never empties
            time.sleep(_POLL_S)
            left = signal_groups(left, 0)


def groups_of(pid: int) -> set[int]:
    """Return the process groups of a process and all its descendants, the caller's own left out."""
    groups = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for member in (first, *first.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(member.pid))
    return groups - {os.getpgrp()}


def signal_groups(groups: set[int], number: int) -> set[int]:
    """Send a signal to process groups (0 only asks) and return those of which any process is left."""
    return {group for group in groups if _signal_group(group, number)}


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
