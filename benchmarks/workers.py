"""What a worker adds to the notebooks that it executes, and whether two workers are as fast as one with two jobs.

    python -m benchmarks.workers --cells 8 --repeats 5

`papermill alone` executes the same empty notebook as often, one process after the other, without the kit. The others
are whole commands on a batch of that many cells: `work` is one worker, `two workers` are two shells that type the same,
`batch --jobs 2` is the pool of one machine, which checks the batch first. The report goes to
results/benchmarks/workers-cpu.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat.v4 as v4
import yaml

from benchmarks.measurement import ROOT, call_in_turns, write_report
from studykit.batch.grid import plan

_CLI = ("-m", "studykit.cli")
_WORKER = (*_CLI, "work", "cells")


def main() -> None:
    """Measure everything in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--name", default="cpu", help="of the report")
    arguments = parser.parse_args()
    outcomes = call_in_turns(
        {
            "papermill alone": lambda: time_papermill(arguments.cells),
            "work": lambda: time_commands(arguments.cells, _WORKER),
            "two workers": lambda: time_commands(arguments.cells, _WORKER, _WORKER),
            "batch --jobs 2": lambda: time_commands(arguments.cells, (*_CLI, "batch", "cells", "--jobs", "2")),
        },
        arguments.repeats,
    )
    write_report("workers", arguments.name, {"cells": arguments.cells}, contestants=outcomes)


def time_papermill(cells: int) -> dict[str, Any]:
    """Return the wall time of executing an empty notebook once for each cell."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_batch(Path(name), cells) / "notebooks"
        started = time.perf_counter()
        for _ in range(cells):
            command = ["-m", "papermill", "empty.ipynb", "done.ipynb", "--no-progress-bar", "--kernel", "python3"]
            _join(_start(command, folder))
        return _counted(cells, time.perf_counter() - started)


def time_commands(cells: int, *commands: Sequence[str]) -> dict[str, Any]:
    """Return the wall time of commands that begin together, until all have ended and every cell is done."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_batch(Path(name), cells)
        started = time.perf_counter()
        processes = [_start(command, folder) for command in commands]
        for process in processes:
            _join(process)
        seconds = time.perf_counter() - started
        planned = plan("cells", folder=folder / "notebooks", results_root=folder / "results")
        if {cell.status() for cell in planned} != {"done"}:
            raise RuntimeError("a cell is not done")
        return _counted(cells, seconds)


def write_batch(folder: Path, cells: int) -> Path:
    """Write an empty notebook and a batch of that many cells; return the folder."""
    (folder / "notebooks" / "batches").mkdir(parents=True)
    (folder / "results").mkdir()
    code = 'study = "empty"\nresults = "../results"\nnumber = 0'
    parameters = v4.new_code_cell(code, metadata={"tags": ["parameters"]})
    arms = v4.new_code_cell("arms = {}", metadata={"tags": ["arms"]})
    notebook = v4.new_notebook(cells=[parameters, arms])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (folder / "notebooks" / "empty.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    entry = {"notebook": "empty", "grid": {"number": list(range(cells))}}
    (folder / "notebooks" / "batches" / "cells.yaml").write_text(yaml.safe_dump([entry]), encoding="utf-8")
    return folder


def _start(command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _join(process: subprocess.Popen[bytes]) -> None:
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(error.decode(errors="replace").strip().splitlines()[-1])


def _counted(cells: int, seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "seconds_per_cell": seconds / cells}


if __name__ == "__main__":
    main()
