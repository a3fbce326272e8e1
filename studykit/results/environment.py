"""What the numbers of a run depend on besides its specification: versions, processor, revision of the code."""

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from studykit.errors import InputError
from studykit.results.record import Environment

PROCESSES, SHARDING = "STUDYKIT_PROCESSES", "STUDYKIT_SHARDING"
"""The environment variables with the number of processes that each run is computed by, and with 1 where these divide
the weights of models among them; `--processes` and `--shard` set them."""

_CHECKOUT = Path(__file__).parents[2]
_PACKAGES = ("studykit", "torch", "transformers", "accelerate", "peft", "datasets", "numpy")


@cache
def environment() -> Environment:
    """Return versions, machine type and revision; no names of machines or people, no folders."""
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        processor=processor(),
        cores=os.cpu_count(),
        threads=os.environ.get("OMP_NUM_THREADS"),
        packages={package: found for package in _PACKAGES if (found := _version(package))},
        git_revision=_git("rev-parse", "HEAD"),
        git_dirty=has_changed_code(_CHECKOUT),
    )


def computed_on(gpu: str | None, processes: int = 1) -> Environment:
    """Return the environment with what computed: a GPU's model name, and the number of processes, each on one."""
    several = {"processes": processes} if processes > 1 else {}
    return environment().model_copy(update={"gpu": gpu, "gpus": None if gpu is None else processes} | several)


def processes_wanted() -> int:
    """Return the number of processes that one run of this process is to be computed by.

    Raises:
        InputError: the environment variable `PROCESSES` is no number from 1 on.
    """
    text = os.environ.get(PROCESSES, "1")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{PROCESSES} is {text!r}: give the number of processes of a run, from 1 on")
    return int(text)


def has_changed_code(checkout: Path) -> bool:
    """Return whether package or notebooks differ from the revision; a file that git does not know yet counts, too."""
    return bool(
        _git("status", "--porcelain", "--untracked-files=all", "--", "studykit", "notebooks", checkout=checkout)
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return the model name of the processor, since float results differ between models; None where it is unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str, checkout: Path = _CHECKOUT) -> str | None:
    """Run git in a checkout; None outside one."""
    try:
        done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
