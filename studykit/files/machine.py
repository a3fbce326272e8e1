"""Which machine this is, what a process on it does, and what started this one."""

import os
import socket
import uuid
from functools import cache
from pathlib import Path

import psutil

_ENGINES = {"RAY_JOB_ID": "ray", "SLURM_JOB_ID": "slurm"}
"""Environment variables that an engine sets for what it starts; a Ray cluster may run inside a job of Slurm."""


def engine() -> str:
    """Return what started this process on its machine: `ray` or `slurm`, "" for neither."""
    return next((name for variable, name in _ENGINES.items() if variable in os.environ), "")


@cache
def machine_id() -> str:
    """Return what tells machines and containers apart; a restarted machine is another one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode():x}"


def process_state(pid: int) -> tuple[str, str]:
    """Return whether a process of this machine is `running`, `stopped`, `gone` or `unknown`, and when it began."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(fields[0], "running"), fields[19]
    except OSError:
        pass  # gone, of another user whose processes are hidden, or a system without these files
    try:
        os.kill(pid, 0)
        process = psutil.Process(pid)
        kinds = {psutil.STATUS_STOPPED: "stopped", psutil.STATUS_ZOMBIE: "gone"}
        return kinds.get(process.status(), "running"), f"{process.create_time():.0f}"
    except (ProcessLookupError, psutil.NoSuchProcess):
        return "gone", ""
    except (PermissionError, psutil.AccessDenied):
        return "unknown", ""
