"""Every notebook as it is, with its defaults: `python -m benchmarks.notebooks`.

Each is executed by papermill in its own kernel, with one torch thread and an empty folder of results; the report's
notebook reads the committed results. Alone, or `--jobs` of them at a time. Seconds are those of the whole execution,
the kernel's start included, and processor seconds those of kernel and papermill together, which other work on the
machine changes less. The numbers are written to results/benchmarks/notebooks-cpu.json.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measurement import ROOT, run_in_turns, write_report

NOTEBOOKS = ROOT / "notebooks"
REPORT = "12_report"
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def main() -> None:
    """Execute each notebook in a separate process, one after the other."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="only these notebooks")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time")
    parser.add_argument("--name", default="cpu", help="of the report")
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(execute(chosen.one)))
        return
    with ThreadPoolExecutor(chosen.jobs) as pool:
        found = pool.map(lambda name: run_in_turns(_command(name), chosen.repeats, _ENVIRONMENT), chosen.only)
        outcomes = {name: outcome for one in found for name, outcome in one.items()}
    medians = [outcome["medians"] for outcome in outcomes.values() if "medians" in outcome]
    slowest = {"slowest": {"repeats": chosen.repeats, "medians": max(medians, key=lambda one: one["seconds"])}}
    outcomes |= slowest if len(medians) == len(names) else {}
    settings = {"device": "cpu", "repeats": chosen.repeats, "jobs": chosen.jobs}
    write_report("notebooks", chosen.name, settings, contestants=outcomes)


def _command(name: str) -> dict[str, list[str]]:
    return {name: [sys.executable, "-m", "benchmarks.notebooks", "--one", name]}


def execute(name: str) -> dict[str, Any]:
    """Execute a notebook, and return its seconds and those of all processors."""
    import papermill

    with tempfile.TemporaryDirectory() as folder:
        given = {} if name == REPORT else {"results": folder}
        started = time.monotonic()
        papermill.execute_notebook(
            str(NOTEBOOKS / f"{name}.ipynb"),
            str(Path(folder) / "executed.ipynb"),
            parameters=given,
            cwd=str(NOTEBOOKS),
            progress_bar=False,
        )
        seconds = time.monotonic() - started
    used = os.times()
    cpu_s = used.user + used.system + used.children_user + used.children_system
    return {"seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1)}


if __name__ == "__main__":
    main()
