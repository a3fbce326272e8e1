"""Many workers on one shared folder, simulated: how much they ask of it, and what of their time it costs.

    python -m benchmarks.shared_folder                         # up to 10,000 cells and 500 workers
    python -m benchmarks.shared_folder --workers 50 --cells 1000 --latency-ms 10 --capacity 2000

What runs is the code of the workers: `studykit.batch.work.work` with its leases, the files of cells and runs, and the
status of a run, each in virtual time (`benchmarks.virtual_time`). In place of a notebook is a task that writes what one
writes: the executed notebook eight times, a run under a lease, its status about once a second, the record. Cells
take a log-normal time, 120 s in the mean, which is short: the longer they take, the less a folder matters. Workers
are on separate machines, die at random, once an hour each, and are replaced a minute later; as often they are stopped
for longer than a lease, and come back. Nothing goes on from a checkpoint here: what a death costs is counted whole.

*Operations* are calls of the system that open, create, list, look up, rename, remove, flush or touch: reading and
writing a small file is one with its opening, and nothing is cached by the client. `on_files` is the share of the
workers' time in which they wait for the folder, `idle` that in which they find no free cell, `double` the share of
training that is done again. The report is results/benchmarks/shared_folder-simulated.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measurement import OUT, write_report
from benchmarks.simulated_workers import BETWEEN_DEATHS_S, MEAN_S, Simulation

SWEEP = (
    *({"workers": workers, "latency_ms": 10.0} for workers in (10, 50, 100, 200)),
    *({"workers": 100, "latency_ms": latency} for latency in (1.0, 100.0, 1000.0)),
    {"workers": 100, "latency_ms": 10.0, "capacity": 200.0},
    {"workers": 500, "latency_ms": 10.0},
)
"""Twenty cells for each worker. The last one takes some minutes of a processor, or many on one that is shared."""

_MEMORY = Path("/dev/shm")
"""Where files cost no disk."""


def main() -> None:
    """Simulate one setting, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, help="this setting only")
    parser.add_argument("--cells", type=int, help="20 per worker by default")
    parser.add_argument("--latency-ms", type=float, default=10.0, help="of a file operation on an idle server")
    parser.add_argument("--capacity", type=float, default=5000.0, help="operations of the server in a second")
    parser.add_argument("--no-report", action="store_true", help="print the figures only")
    arguments = parser.parse_args()
    chosen = {"workers": arguments.workers, "latency_ms": arguments.latency_ms, "capacity": arguments.capacity}
    for setting in SWEEP if arguments.workers is None else (chosen,):
        began = time.perf_counter()
        cells = arguments.cells or 20 * setting["workers"]
        line = simulate(**{"cells": cells, "capacity": arguments.capacity, **setting})
        print(f"{time.perf_counter() - began:.0f} s: {line}", file=sys.stderr, flush=True)
        if not arguments.no_report:
            write(line)


def write(line: dict[str, Any]) -> None:
    """Put the figures of one setting into the report, in place of those that it has of the same setting."""
    file = OUT / "shared_folder-simulated.json"
    known = json.loads(file.read_text(encoding="utf-8"))["lines"] if file.exists() else []
    lines = sorted([line, *(other for other in known if _setting(other) != _setting(line))], key=_setting)
    worst = {
        "most_operations_to_take": max(line["most_operations_to_take"] for line in lines),
        "not_once": max(line["ended_twice"] + line["not_ended"] for line in lines),
    }
    settings = {"mean_s": MEAN_S, "hours_between_deaths": BETWEEN_DEATHS_S / 3600, "lease_s": 60, "heartbeat_s": 5}
    contestants = {"all settings": {"repeats": 1, "medians": worst}}
    write_report("shared_folder", "simulated", settings, lines=lines, contestants=contestants)


def _setting(line: dict[str, Any]) -> tuple[float, ...]:
    return tuple(line[name] for name in ("workers", "latency_ms", "capacity", "cells"))


def simulate(cells: int, workers: int, latency_ms: float, capacity: float = 5000.0, seed: int = 0) -> dict[str, Any]:
    """Return what a batch asks of the folder and what it costs the workers.

    Args:
        cells: of the batch.
        workers: that begin together.
        latency_ms: of a file operation on an idle server.
        capacity: operations that the server does in a second.
        seed: of durations, deaths and stops.
    """
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        simulation = Simulation(Path(folder), cells, latency_ms / 1000, capacity, seed)
        with simulation.patched():
            simulation.run(workers)
        sizes = {"workers": workers, "cells": cells, "latency_ms": latency_ms, "capacity": capacity}
        return sizes | simulation.counted()


if __name__ == "__main__":
    main()
