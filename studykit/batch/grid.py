"""A grid of notebook executions: resumable, isolated, checked before it starts. Torch-free.

    cells = plan("quickstart", results_root=Path("results"))
    preflight(cells)
    run_batch(cells, Local(jobs=2), on_change=print)      # of studykit.batch.work

A cell is one notebook with one combination of a grid's values. Its id is the hash of notebook code, parameters and the
files that they name, so a cell that is done is done in every batch that has it.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studykit.batch import notebooks
from studykit.batch.batch_files import read_batch
from studykit.batch.parameter_files import file_hashes
from studykit.errors import Failure, InputError, unknown
from studykit.executors import _processes
from studykit.executors.local import threads_of_job
from studykit.results.cells import read_cell
from studykit.results.layout import check_study
from studykit.results.record import recorded_status
from studykit.results.status import read_status


@dataclass(frozen=True)
class Cell:
    """One execution of one notebook.

    Attributes:
        notebook: the file.
        parameters: all of them, defaults included.
        study_folder: the folder of the study that its results belong to.
        cell_id: 12 hex digits of the hash of code and parameters.
    """

    notebook: Path
    parameters: dict[str, Any]
    study_folder: Path
    cell_id: str

    @property
    def folder(self) -> Path:
        """The folder of its executed notebook, log and record."""
        return self.study_folder / "cells" / self.cell_id

    def status(self) -> str:
        """Return `done`, `failed` or `waiting`, from the cell's own record."""
        return recorded_status(self.folder) or "waiting"

    def wall_s(self) -> float | None:
        """Return the seconds that it took; None before it ended."""
        return read_cell(self.folder).wall_s

    def doing(self) -> str:
        """Return what the process that runs the cell is doing, in one line."""
        runs = read_cell(self.folder).runs
        status = read_status(self.study_folder / "runs" / runs[-1]) if runs else None
        if status is None:
            return f"{len(runs)} run{'s' if len(runs) > 1 else ''} done" if runs else "starting"
        return f"run {len(runs)}, {status.line()}"


def plan(
    name: str,
    *,
    folder: Path = Path("notebooks"),
    results_root: Path = Path("results"),
    overrides: dict[str, Any] | None = None,
) -> list[Cell]:
    """Return all cells of a batch, in the order of its file (the first parameter varies slowest).

    Args:
        name: a file in `notebooks/batches/` without its ending, or a path to a YAML file.
        folder: the folder of the notebooks.
        results_root: the results folder.
        overrides: parameters set for every cell, instead of the grid's; a list replaces the grid's values.

    Raises:
        InputError: no such batch, notebook or parameter, a value of the wrong type, or a folder that is not a study.
    """
    cells: dict[str, Cell] = {}
    for entry in read_batch(name, folder):
        notebook = notebooks.find_notebook(folder, entry["notebook"])
        grid = (entry.get("grid") or {}) | (overrides or {})
        grid = {parameter: v if isinstance(v, list) else [v] for parameter, v in grid.items()}
        for parameter in (parameter for parameter, values in grid.items() if not values):
            raise InputError(f"batch {name}: parameter {parameter!r} has no values, so there is nothing to run")
        for values in _combinations(name, grid, entry.get("together") or []):
            cell = _cell(notebook, values, results_root)
            cells[cell.cell_id] = cell
    return list(cells.values())


def _combinations(name: str, grid: dict[str, list[Any]], together: list[str]) -> list[dict[str, Any]]:
    """Return every combination of a grid's values; parameters that go together take their first values together, their
    second ones, and so on. One that has a single value keeps it throughout."""
    for parameter in together:
        if parameter not in grid:
            raise InputError(f"batch {name}: together: {unknown('parameter of the grid', parameter, grid)}")
    zipped = [parameter for parameter in together if len(grid[parameter]) > 1]
    counts = {parameter: len(grid[parameter]) for parameter in zipped}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{parameter} has {count}" for parameter, count in counts.items())
        raise InputError(f"batch {name}: parameters that go together need equally many values: {listed}")
    axes: dict[str, list[dict[str, Any]]] = {}
    for parameter, values in grid.items():
        axis = zipped[0] if parameter in zipped else parameter
        rows = axes.get(axis, [{} for _ in values])
        axes[axis] = [row | {parameter: value} for row, value in zip(rows, values, strict=True)]
    return [
        {name: value for part in parts for name, value in part.items()} for parts in itertools.product(*axes.values())
    ]


@dataclass(frozen=True)
class Preflight:
    """What is known of a batch before it starts.

    Attributes:
        lines: how much of their budgets the runs train on, each that differs.
        estimates: what each cell will take, by its id: the fields of `studykit.study.estimate.Estimate`; empty for a
            cell without runs.
    """

    lines: list[str]
    estimates: dict[str, dict[str, float]]


def preflight(cells: list[Cell], jobs: int = 1) -> Preflight:
    """Check every specification of the cells in another process, so that this one need not import torch.

    Args:
        cells: that are to run.
        jobs: number of cells that run at the same time, and share the cores.

    Raises:
        InputError: the first fault, in one line.
    """
    folders = dict.fromkeys(cell.notebook.parent for cell in cells)
    lines: dict[str, None] = {}
    estimates: dict[str, dict[str, float]] = {}
    for folder in folders:
        inside = [cell for cell in cells if cell.notebook.parent == folder]
        checked = _preflight(folder, inside, jobs)
        lines |= dict.fromkeys(checked["lines"])
        estimates |= zip((cell.cell_id for cell in inside), checked["estimates"], strict=False)
    return Preflight(list(lines), estimates)


def _preflight(folder: Path, cells: list[Cell], jobs: int) -> dict[str, Any]:
    """Check the cells of one folder, in it, as their notebooks will run: paths are relative to it."""
    content = {
        "jobs": jobs,
        "cells": [{"notebook": c.notebook.name, "parameters": c.parameters} for c in cells],
    }
    done = subprocess.run(
        [sys.executable, "-m", "studykit.batch.preflight"],
        input=json.dumps(content),
        capture_output=True,
        text=True,
        cwd=folder,
        env={"OMP_NUM_THREADS": str(threads_of_job(jobs)), **os.environ, _processes.PARENT: str(os.getpid())},
        start_new_session=True,  # it ends its whole process group when this process is gone
    )
    if done.returncode == 2:
        raise InputError(done.stdout.strip().splitlines()[-1])
    if done.returncode:
        raise Failure(f"the check before the batch failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def failures(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Return id, parameters and error of the cells that are not done."""
    return [
        {"cell": c.cell_id, "parameters": c.parameters, "error": _error(c), "log": str(c.folder / "log.txt")}
        for c in cells
        if c.status() != "done"
    ]


def _cell(notebook: Path, given: dict[str, Any], results_root: Path) -> Cell:
    parameters = notebooks.check_parameters(notebook, given)
    for needed in ("study", "results"):
        if not isinstance(parameters.get(needed), str):
            raise InputError(f"notebook {notebook.stem}: a batch needs its parameter {needed!r} to be a text")
    identity = [notebooks.code_hash(notebook), notebook.stem, parameters, file_hashes(parameters, notebook.parent)]
    hashed = json.dumps(identity, sort_keys=True, allow_nan=False)
    parameters = parameters | {"results": os.path.relpath(results_root.resolve(), notebook.parent.resolve())}
    cell_id = hashlib.sha256(hashed.encode()).hexdigest()[:12]
    return Cell(notebook, parameters, check_study(results_root, parameters["study"]), cell_id)


def _error(cell: Cell) -> str:
    return read_cell(cell.folder).error or "not run"
