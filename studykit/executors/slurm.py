"""Submit workers to Slurm: one array of equal jobs, each of which takes cells until none is free.

`studykit batch NAME --executor slurm --jobs 8 -o partition=gpu -o gpus=1 -o time=4:00:00` takes every long option of
`sbatch`; one without a value is `-o exclusive=true`. `--dry-run` prints the script. The cluster may take a job away, or
its time may end: the worker then saves a checkpoint and gives its cell back, and the job is queued again.
"""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studykit.discovery import Option
from studykit.errors import InputError

_GRACE_S = 120
"""Before the time limit, for a step of training and a checkpoint."""

_SBATCH = frozenset(
    """
account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container
container-id contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency
distribution error exclude exclusive export export-file extra extra-node-info get-user-env gid gpu-bind gpu-freq gpus
gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint hold ignore-pbs input job-name kill-on-invalid-dep
licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nice no-kill no-requeue
nodefile nodelist nodes ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output overcommit
oversubscribe parsable partition power prefer priority profile propagate qos quiet reboot requeue reservation segment
signal sockets-per-node spread-job stepmgr switches test-only thread-spec threads-per-core time time-min tmp tres-bind
tres-per-task uid use-min-nodes verbose wait wait-all-nodes wckey
""".split()  # noqa: SIM905  a list of words, and not of strings to be read one below the other
)
_FIXED = {
    "array": "--jobs sets it",
    "chdir": "workers start in the folder from which they are submitted",
    "parsable": "the number of the job is read",
    "signal": f"the workers need it, {_GRACE_S} s before the time limit",
    "wait": "the workers are followed by `studykit status`",
}
"""Options of sbatch that are taken."""

_BYTES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Slurm:
    """An array of equal jobs; one worker each.

    Args:
        jobs: number of workers.
        options: long options of sbatch by name; True for one without a value.
    """

    is_detached = True
    options: Mapping[str, Option] = {
        name: Option(name, str | int | float | bool, None, "of sbatch")
        for name in sorted(_SBATCH)
        if name not in _FIXED
    }

    def __init__(self, jobs: int = 1, **options: Any):
        self.jobs, self._options = jobs, options

    @property
    def gpus(self) -> float:
        """GPUs of each worker, from its options: `gpus=2`, `gpus-per-node=a100:2` or `gres=gpu:a100:2`."""
        return max((_gpus(name, str(value)) for name, value in self._options.items()), default=0)

    def check(self, memory_bytes: float) -> None:
        """Refuse what cannot run: no Slurm on this machine, or less memory than a cell needs.

        Raises:
            InputError: what is missing.
        """
        if not shutil.which("sbatch"):
            raise InputError("executor 'slurm': no sbatch on the path: run this where jobs are submitted to Slurm")
        asked = str(self._options.get("mem", ""))
        match = re.fullmatch(r"(\d+)([KMGT]?)B?", asked.upper())
        if match and 0 < (limit := int(match[1]) * _BYTES[match[2] or "M"]) < memory_bytes:
            raise InputError(
                f"executor 'slurm': mem={asked} is {limit / 1e9:.1f} GB, a cell needs about {memory_bytes / 1e9:.1f} GB"
            )

    def script(self, command: Sequence[str], log: Path) -> str:
        """Return the script that is submitted.

        Args:
            command: of one worker.
            log: of all workers, the results folder's `NAME.log`; each writes one beside it.
        """
        fixed = {
            "job-name": f"studykit-{log.stem}",
            "output": f"{log.resolve().with_suffix('')}-%A_%a.log",
            "open-mode": "append",
            "requeue": True,
        }
        options = fixed | self._options | {"array": f"0-{self.jobs - 1}", "signal": f"B:USR1@{_GRACE_S}"}
        return _SCRIPT.format(
            directives="\n".join(_directive(name, value) for name, value in options.items() if value is not False),
            folder=shlex.quote(str(Path.cwd())),
            results=shlex.quote(str(log.parent.resolve())),
            python=shlex.quote(sys.executable),
            worker=shlex.join(command),
        )

    def submit(self, command: Sequence[str], log: Path) -> str:
        """Submit all workers and return the number of the job.

        Raises:
            InputError: Slurm refuses them.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        script = self.script(command, log)
        done = subprocess.run(["sbatch", "--parsable"], input=script, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"executor 'slurm': {done.stderr.strip() or f'sbatch ended with {done.returncode}'}")
        return done.stdout.strip().partition(";")[0]

    def poll(self, handle: str) -> int | None:
        """Return 0 once no worker is queued or running, None before."""
        queued = subprocess.run(["squeue", "--noheader", f"--jobs={handle}"], capture_output=True, text=True)
        return None if queued.stdout.strip() else 0

    def cancel(self, handle: str) -> None:
        """End all workers; they give their cells back."""
        subprocess.run(["scancel", handle], check=True)

    def describe(self, handle: str) -> str:
        """Return how submitted workers are ended."""
        return f"job {handle}; `scancel {handle}` ends them"


def _gpus(option: str, value: str) -> int:
    """Return the number of GPUs that an option of sbatch wants.

    >>> _gpus("gpus", "2"), _gpus("gpus-per-node", "a100:2"), _gpus("gres", "gpu:a100:2,tmp:9"), _gpus("time", "60")
    (2, 2, 2, 0)
    """
    if option not in ("gpus", "gpus-per-node", "gpus-per-task", "gres"):
        return 0
    parts = [part for part in value.split(",") if option != "gres" or part.startswith("gpu")]
    last = [part.rpartition(":")[2] for part in parts]
    return sum(int(count) if count.isdigit() else 1 for count in last)


def _directive(name: str, value: Any) -> str:
    text = " ".join(str(value).split())
    return (
        f"#SBATCH --{name}"
        if value is True
        else f'#SBATCH --{name}="{text}"'
        if " " in text
        else f"#SBATCH --{name}={text}"
    )


_SCRIPT = """#!/bin/bash
{directives}

if ! cd {folder} || [ ! -d {results} ] || [ ! -x {python} ]; then
  echo "studykit: $(hostname) does not see" {folder}, {results} or {python}": workers need a disk that all share" >&2
  exit 2
fi
export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-${{SLURM_CPUS_ON_NODE:-1}}}}"

{worker} &
worker=$!
limit=0
trap 'limit=1; kill -TERM $worker' USR1    # the time limit is near
trap 'kill -TERM $worker' TERM             # the job is taken away or cancelled
while kill -0 $worker 2>/dev/null; do wait $worker; code=$?; done
if [ "$limit" = 1 ] && [ "$code" = 143 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""
