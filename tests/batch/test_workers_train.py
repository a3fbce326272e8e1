"""Workers that train, one of which is killed: they leave bitwise what one process leaves, and train nothing twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_notebooks import MARKER, PATIENCE_S, marked, wait_for, write_batch, write_notebook

from studykit import results, study
from studykit.files.leases import holder

ROOT = Path(__file__).parents[2]
COMPARE = """
from studykit import study as runner
runner.compare(options, study=study, root=results)
"""


@pytest.fixture
def grid(tmp_path, plain_spec, stage):
    """Write a grid of two comparisons that share their sft run, and return the arms of both."""
    sft = plain_spec(stage(steps=40), teacher=False)
    arms = [{"sft": sft, name: plain_spec(stage("kd", steps=40, method_options=options))} for name, options in OTHERS]
    write_notebook(tmp_path / "notebooks", "01_compare", COMPARE)
    write_batch(tmp_path / "notebooks", "grid", [{"notebook": "01_compare", "grid": {"options": arms}}])
    (tmp_path / "results").mkdir()
    yield arms
    for process in marked(str(tmp_path)):
        process.kill()


OTHERS = (("kd", {}), ("reverse", {"loss": "reverse_kl"}))


def start_worker(root):
    """Start `studykit work` on the grid, on one thread."""
    environment = os.environ | {MARKER: str(root), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "studykit.cli", "work", "grid"]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)


def held(folder):
    """Return the holders of the cells or runs in a folder."""
    return [found for found in map(holder, folder.glob("*")) if found is not None]


def trained(folder):
    """Return the sha256 of the weights of every run by its id, and the number of times that a training was begun."""
    records = [results.read_record(run) for run in (folder / "runs").iterdir()]
    done = [record for record in records if record is not None and record.status == "done"]
    assert len(done) == len(records)
    weights = {record.run_id: record.files["model/model.safetensors"] for record in done}
    return weights, sum(record.cost.get("attempts", 1) for record in done)


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_leave_what_one_process_leaves(tmp_path, grid, one_thread):
    for arms in grid:
        study.compare(arms, study="alone", root=tmp_path / "results")
    together = tmp_path / "results" / "fake"
    first, second = start_worker(tmp_path), start_worker(tmp_path)
    with first, second:
        wait_for(lambda: held(together / "runs"))
        cell = wait_for(lambda: held(together / "cells"))[0]
        killed, other = (first, second) if cell.pid == first.pid else (second, first)
        killed.kill()
        assert other.wait(PATIENCE_S) == 0
    weights, attempts = trained(together)
    assert weights == trained(tmp_path / "results" / "alone")[0]
    assert len(weights) == 3  # sft once for both cells
    assert attempts <= 4  # twice, in part, only what the killed worker had in hand
