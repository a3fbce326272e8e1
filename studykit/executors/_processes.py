"""End a process and everything it started, in whichever session or process group each of them is.

A notebook's kernel leads a separate session, so ending the process group of the process that opened it is not enough.
`end_with_parent` is the same from the other side: called in a process that an executor started, it ends this process
and all it started once the executor's process has ended, for any reason.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time

import psutil

PARENT = "STUDYKIT_FOLLOW_PARENT"
"""The environment variable that gives a started process the id of the process to outlive by at most a moment."""

_POLL_S = 0.05
_PARENT_POLL_S = 0.5


def end(process: subprocess.Popen, grace_s: float) -> None:
    """Terminate a process and all it started, kill what is left after `grace_s`, and return once nothing is left."""
    left: set[int] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s
        left = signal_groups(left | groups_of(process.pid), number)
        while left and time.monotonic() < deadline:
            process.poll()  # reap it, or its group never empties
            time.sleep(_POLL_S)
            left = signal_groups(left, 0)


def end_with_parent() -> None:
    """From now on, kill this process and all it started once the process named by `PARENT` is not its parent."""
    parent = os.environ.pop(PARENT, None)

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(_PARENT_POLL_S)
        signal_groups(groups_of(os.getpid()), signal.SIGKILL)
        os.killpg(0, signal.SIGKILL)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def groups_of(pid: int) -> set[int]:
    """Return the process groups of a process and all its descendants, without the caller's group."""
    groups = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for member in (first, *first.children(recursive=True)):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(member.pid))
    return groups - {os.getpgrp()}


def signal_groups(groups: set[int], number: int) -> set[int]:
    """Send a signal to process groups (0 sends none) and return the groups that still hold a process."""
    return {group for group in groups if _signal_group(group, number)}


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
