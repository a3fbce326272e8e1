"""Peak memory of a run, not of what its process did before.

peak = PeakMemory()
...train...
peak.gib()
"""

import gc
import resource
import sys
from pathlib import Path

import torch
from accelerate.utils import gather_object

from studykit.training import ranks

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"


class PeakMemory:
    """The peak since the object was made: of a GPU's allocations; without a GPU, of the process's resident memory.

    Linux sets its record of a process's peak back to the present use when `5` is written to /proc/self/clear_refs (man
    proc_pid_clear_refs). Where that is not possible, the system's record is of the whole process: then the peak is
    known only if it has grown meanwhile. Sampling in a thread was left out: it misses short peaks.
    """

    def __init__(self) -> None:
        gc.collect()  # what an earlier run has left is not counted as this one's
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._is_reset = _reset()
        self._before = _peak_of_process()

    def of_all(self) -> float | None:
        """Return the peak of the processes of a run, GiB: the largest of the GPUs', or the sum of resident memory."""
        every = gather_object([self.gib()]) if ranks.count() > 1 else [self.gib()]
        known = [peak for peak in every if peak is not None]
        if len(known) < len(every):
            return None
        return max(known) if torch.cuda.is_available() else sum(known)

    def gib(self) -> float | None:
        """Return the peak in GiB; None where only a larger one of the time before is known."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**30
        if self._is_reset:
            return _high_water_mark() / 2**30
        peak = _peak_of_process()
        return peak / 2**30 if peak > self._before else None


def _reset() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
        return _high_water_mark() > 0
    except (OSError, StopIteration):
        return False


def _high_water_mark() -> int:
    """Return the peak of the resident memory since the last reset, bytes."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _peak_of_process() -> int:
    """Return the peak of the resident memory since the process started, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
