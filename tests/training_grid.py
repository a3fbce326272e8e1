"""A grid of twelve trainings for tests of executors: each step is noted, and in the middle each waits for a word."""

from collections import Counter
from pathlib import Path
from typing import Any

from fake_notebooks import write_batch, write_notebook

from studykit import results, study

CELLS, STEPS, HELD_AT = 12, 12, 6
CODE = f"""
import os, pathlib, time
from contextlib import contextmanager
from studykit import study as runner
from studykit.training import loop

here, number = pathlib.Path(place), options["sft"]["seed"]
compute_loss, until_stopped, stops = loop.compute_loss, loop.until_stopped, []

def note(name, *what):
    with (here / name).open("a") as stream:
        stream.write(" ".join(map(str, (number, *what))) + "\\n")

@contextmanager
def noting_stops():
    with until_stopped() as is_stopped:
        stops.append(is_stopped)
        yield is_stopped

def noting(training, batch, denominator):
    note("steps", training.step)
    if training.step == {HELD_AT} and (here / "hold").exists():
        task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        note("held", os.environ.get("SLURMD_NODENAME"), *task, os.environ.get("SLURM_JOB_ID"), os.getpid())
        while (here / "hold").exists() and not stops[-1]():
            time.sleep(0.05)
    return compute_loss(training, batch, denominator)

loop.compute_loss, loop.until_stopped = noting, noting_stops
runner.compare(options, study=study, root=results)
note("ended")
"""


def write_grid(root: Path, specs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the grid, whose cells wait while the file `hold` exists, and return the arms of each cell."""
    arms = [{"sft": spec} for spec in specs]
    write_notebook(root / "notebooks", "01_train", CODE)
    write_batch(root / "notebooks", "grid", [{"notebook": "01_train", "grid": {"options": arms, "place": str(root)}}])
    (root / "results").mkdir()
    (root / "hold").write_text("")
    return arms


def noted(root: Path, name: str) -> list[list[str]]:
    """Return the words of each note."""
    return [line.split() for line in (root / name).read_text().splitlines()] if (root / name).exists() else []


def assert_each_trained_once(root: Path, arms: list[dict[str, Any]], lost: set[int]) -> None:
    """Assert that the runs are those of one process, and no step was computed twice but of cells whose worker was lost.

    Args:
        root: of the grid.
        arms: of its cells.
        lost: numbers of the cells that a worker had in hand when it was killed or stopped.
    """
    for arm in arms:
        study.compare(arm, study="alone", root=root / "results")
    assert _weights(root / "results" / "fake") == _weights(root / "results" / "alone")
    steps = Counter((int(number), int(step)) for number, step in noted(root, "steps"))
    assert set(steps) == {(number, step) for number in range(CELLS) for step in range(STEPS)}
    again = {place: count for place, count in steps.items() if count > 1}
    assert set(again) <= {(number, step) for number in lost for step in range(HELD_AT + 1)}
    assert set(again.values()) <= {2}
    ended = Counter(int(number) for [number] in noted(root, "ended"))
    assert set(ended) == set(range(CELLS))
    assert {number for number, count in ended.items() if count > 1} <= lost  # their notebooks found a finished run


def _weights(folder: Path) -> dict[str, str]:
    """Return the sha256 of the weights of every run by its id."""
    records = [results.read_record(run) for run in (folder / "runs").iterdir()]
    assert {record and record.status for record in records} == {"done"}
    weights = {record.run_id: record.files["model/model.safetensors"] for record in records if record is not None}
    assert len(weights) == CELLS
    return weights
