"""The estimate of a batch as a table and as a line."""

import io
import json
import subprocess
from types import SimpleNamespace

import pytest
from fake_notebooks import everything_under, write_batch, write_notebook
from rich.console import Console

from studykit import cli
from studykit.batch import grid, terminal
from studykit.batch.estimates import add, estimate_line, estimate_table
from studykit.batch.terminal import BatchReport, describe_done
from studykit.results import CellSpec, Purpose, RunWriter, open_study
from studykit.results.cells import add_run, finish_cell, write_cell
from studykit.results.environment import PROCESSES
from studykit.spec import RunSpec

CELL = {
    "student_tokens": 300_000,
    "teacher_tokens": 20_000,
    "cached_tokens": 500,
    "cache_bytes": 4e6,
    "weights_bytes": 5e6,
    "checkpoint_bytes": 1e6,
    "memory_bytes": 9e8,
    "seconds": 60.0,
    "runs": 2,
    "trials": 0,
    "runs_there": 0,
    "tuning_s": 0.0,
    "further_trials": 0,
    "further_s": 0.0,
}


def test_cells_add_up_and_the_largest_memory_counts():
    total = add([CELL, CELL | {"memory_bytes": 1.5e9}])
    assert (total["seconds"], total["weights_bytes"], total["checkpoint_bytes"]) == (120.0, 1e7, 1e6)
    assert total["memory_bytes"] == 1.5e9


@pytest.mark.parametrize(("jobs", "time"), [(1, "3 min"), (2, "90 s"), (9, "60 s")])
def test_the_line_has_it_all(jobs, time):
    each = " each" if jobs > 1 else ""
    assert estimate_line([CELL] * 3, jobs) == (
        f"3 cells will take about {time}, 900 MB of memory{each}, 28 MB of disk: 6 runs to train; 900 k tokens "
        "trained on, 60 k through the teacher, 12 MB of cache"
    )


def test_trials_are_counted_apart_and_what_is_there_is_said():
    tuned = CELL | {"trials": 24, "runs_there": 12, "tuning_s": 40.0}
    line = estimate_line([tuned, CELL], 1)
    assert "4 runs and 24 trials (40 s) to train, 12 more are done or shared; " in line


def test_trials_that_widening_may_add_are_no_part_of_the_time():
    tuned = CELL | {"trials": 24, "runs_there": 12, "tuning_s": 40.0, "further_trials": 1200, "further_s": 600.0}
    line = estimate_line([tuned, CELL], 2)
    assert line.startswith("2 cells will take about 60 s")
    assert "and 24 trials (20 s), and at most 1,200 more where a grid is widened (5 min), to train, 12 more" in line


def test_one_of_a_kind_is_written_as_one():
    line = estimate_line([CELL | {"runs": 1, "trials": 1, "runs_there": 1}], 1)
    assert line.startswith("1 cell will take")
    assert "1 run and 1 trial (0 s) to train, 1 more is done or shared; " in line


def test_the_table_has_a_row_for_each_cell_and_the_sum():
    text = io.StringIO()
    Console(file=text, width=140).print(estimate_table({"seed=0": CELL, "seed=1": CELL}))
    lines = [line.split("│") for line in text.getvalue().splitlines() if "seed=" in line or "all" in line]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["seed=0", "2", "0", "0", "300 k", "20 k", "500", "4 MB", "10 MB", "900 MB", "60 s"],
        ["seed=1", "2", "0", "0", "300 k", "20 k", "500", "4 MB", "10 MB", "900 MB", "60 s"],
        ["all", "4", "0", "0", "600 k", "40 k", "1.0 k", "8 MB", "19 MB", "900 MB", "2 min"],
    ]


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Write a batch of two cells in an empty folder, whose check answers with estimates."""
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks", "01_fake")
    write_batch(tmp_path / "notebooks", "fake", [{"notebook": "01_fake", "grid": {"number": [1, 2]}}])
    answer = {"lines": ["budget 24, seen 12 (0.50 epochs)"], "estimates": [CELL, CELL | {"seconds": 180.0}]}

    def answered(command, *, input, **more):
        assert len(json.loads(input)["cells"]) == 2
        return SimpleNamespace(returncode=0, stdout=json.dumps(answer) + "\n", stderr="")

    monkeypatch.setattr(subprocess, "run", answered)
    return grid.plan("fake", folder=tmp_path / "notebooks", results_root=tmp_path / "results")


def test_a_dry_run_shows_it_and_starts_nothing(batch, tmp_path, monkeypatch, capsys):
    before = everything_under(tmp_path)
    monkeypatch.setattr("sys.argv", ["studykit", "batch", "fake", "--dry-run"])
    cli.app(standalone_mode=False)
    printed = capsys.readouterr().out
    assert "number=1" in printed
    assert "2 cells will take about 4 min" in printed
    assert "budget 24, seen 12 (0.50 epochs)" in printed
    assert everything_under(tmp_path) == before


@pytest.mark.parametrize("engine", [[], ["--executor", "slurm"]])
@pytest.mark.parametrize("count", [1, 4])
def test_a_dry_run_says_what_several_processes_make_of_it(batch, monkeypatch, capsys, engine, count):
    monkeypatch.setenv(PROCESSES, "1")  # set by the option, and put back
    monkeypatch.setattr("sys.argv", ["studykit", "batch", "fake", *engine, "--processes", str(count), "--dry-run"])
    cli.app(standalone_mode=False)
    printed = " ".join(capsys.readouterr().out.split())
    note = "; this is for runs by one process: 4 take at best 1/4 of the time, and together at most 4 times the memory"
    said = [f"8 MB of cache{note if count > 1 else ''}"]
    said += [f"1 workers, about 0.067 hours of their time together{note if count > 1 else ''}"] if engine else []
    assert [text in printed for text in said] == [True] * len(said), printed
    assert printed.count("one process") == (len(said) if count > 1 else 0)


@pytest.mark.parametrize(
    "options", [["slurm", "-o", "gpus=2"], ["slurm", "-o", "gres=gpu:a100:2"], ["ray", "-o", "num_gpus=2"]]
)
def test_a_dry_run_on_other_machines_says_the_gpu_hours(batch, monkeypatch, capsys, options):
    monkeypatch.setattr("sys.argv", ["studykit", "batch", "fake", "--executor", *options, "--dry-run"])
    cli.app(standalone_mode=False)
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 workers, about 0.067 hours of their time together, 0.13 GPU-hours" in printed


def test_the_time_left_is_known_before_a_cell_ends_and_follows_those_that_have(batch, monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: now.s))
    report = BatchReport(batch, Console(file=io.StringIO(), width=140))
    report.expect(grid.preflight(batch).estimates, jobs=1)
    counts = {"done": 0, "failed": 0, "running": 1, "waiting": 1}
    report.watch(batch[:1])
    now.s = 30.0
    assert report._time_left(counts) == "; about 4 min left"  # 240 s, of which 30 are over: 3.5 min
    monkeypatch.setattr(type(batch[0]), "wall_s", lambda cell: 120.0 if cell == batch[0] else None)
    now.s = 120.0
    report.watch(batch[1:])
    assert report._time_left(counts | {"done": 1, "waiting": 0}) == "; about 6 min left"  # twice as slow as expected


def test_the_time_left_says_what_widened_grids_may_make_of_it(batch, monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: now.s))
    report = BatchReport(batch, Console(file=io.StringIO(), width=140))
    first, second = (cell.cell_id for cell in batch)
    report.expect({first: CELL | {"seconds": 240.0, "further_s": 360.0}, second: CELL | {"seconds": 120.0}}, jobs=1)
    counts = {"done": 0, "failed": 0, "running": 1, "waiting": 1}
    report.watch(batch[:1])
    assert report._time_left(counts) == "; about 6 min left, at most 12 min"
    now.s = 300.0  # longer than without widening: its grids were widened, or the machine is busy
    assert report._time_left(counts) == "; about 2 min left, at most 7 min"
    monkeypatch.setattr(type(batch[0]), "wall_s", lambda cell: 480.0 if cell == batch[0] else None)
    report.watch(batch[1:])
    assert report._time_left(counts | {"done": 1, "waiting": 0}) == "; about 2 min left"  # widening explains the rest


def test_a_dry_run_of_cells_that_are_done_says_in_one_line_what_is_there_and_what_it_took(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_notebook(tmp_path / "notebooks", "01_fake")
    write_batch(tmp_path / "notebooks", "fake", [{"notebook": "01_fake", "grid": {"number": [1, 2]}}])
    open_study("results", "fake")
    batch = grid.plan("fake")
    stage = {"data": {"source": "a"}, "method": "sft", "steps": 1, "learning_rate": 0.1}
    specs = [RunSpec.parse({"student": {"name": "a"}, "stages": [stage], "seed": seed}) for seed in range(3)]
    for number, spec in enumerate(specs):
        purpose = Purpose(arm="sft", trial_of="0a1b" if number == 2 else None)
        with RunWriter(batch[0].study_folder, spec, purpose) as run:
            run.finish({"train_s": 3600.0, "teacher_s": 1200.0}, [])
    for cell in batch:
        about = {"notebook": "01_fake", "notebooks": "..", "parameters": {}, "timeout_s": 60}
        write_cell(cell.folder, CellSpec(cell_id=cell.cell_id, **about))
        for spec in specs:  # shared by both cells
            add_run(cell.folder, spec.run_id)
        finish_cell(cell.folder, "done", wall_s=1.0)
    line = "2 cells are done: 2 runs and 1 trial on disk, 4.0 h of training and scoring"
    assert describe_done(batch) == line
    monkeypatch.setattr("sys.argv", ["studykit", "batch", "fake", "--dry-run"])
    cli.app(standalone_mode=False)
    assert capsys.readouterr().out.strip() == line
