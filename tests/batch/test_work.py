"""Workers on one grid: every cell ends once, whichever of them is killed, stopped or started twice.

Their cells are short programs instead of notebooks, so that many of them take no time.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from fake_notebooks import MARKER, PATIENCE_S, marked, wait_for, write_batch, write_notebook

from studykit.batch.elsewhere import Workers
from studykit.batch.grid import Cell, plan
from studykit.batch.overview import Overview
from studykit.batch.work import put_back, work
from studykit.cli import main
from studykit.errors import InputError
from studykit.executors.slurm import Slurm
from studykit.files.leases import Lease, holder, is_held, take
from studykit.results.cells import add_run, finish_cell, write_cell
from studykit.results.record import CellSpec

CELL = """
import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
parameters = json.loads((folder / "cell.json").read_text())["parameters"]
place, number = pathlib.Path(parameters["place"]), parameters["number"]

def note(what):
    with (place / what).open("a") as stream:
        stream.write(f"{number}\\n")

note("started")
while (place / "hold").exists() and number == 0:
    time.sleep(0.02)
time.sleep(0.05)
note("ended")
(folder / "record.json.part").write_text(json.dumps({"schema": 3, "status": "done", "wall_s": 2.0}))
(folder / "record.json.part").rename(folder / "record.json")
"""
WORKER = f"""
import sys
from pathlib import Path
from studykit.batch import grid, work
from studykit.executors.local import Local

CELL = {CELL!r}

class Short(Local):
    def submit(self, command, log):
        return super().submit([sys.executable, "-S", "-c", CELL, command[-2]], log)

root, jobs, wait = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "wait"
work._FIRST_LOOK_S = work._LAST_LOOK_S = 0.2
cells = grid.plan("grid", folder=root / "notebooks", results_root=root / "results")
print("ready", flush=True)
sys.stdin.readline()
sys.exit(len(work.work(cells, Short(jobs), wait=wait)))
"""


@pytest.fixture
def grid(tmp_path):
    """Write a grid of twelve cells and return them."""
    write_notebook(tmp_path / "notebooks", "01_fake")
    entry = {"notebook": "01_fake", "grid": {"number": list(range(12)), "place": str(tmp_path)}}
    write_batch(tmp_path / "notebooks", "grid", [entry])
    return plan("grid", folder=tmp_path / "notebooks", results_root=tmp_path / "results")


@pytest.fixture
def start(tmp_path):
    """Start workers that begin together, and end them."""

    def together(count, jobs=1, wait="wait", lease_s="60"):
        environment = os.environ | {MARKER: str(tmp_path), "STUDYKIT_LEASE_S": lease_s}
        command = [sys.executable, "-c", WORKER, str(tmp_path), str(jobs), wait]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers: list[Any] = [subprocess.Popen(command, env=environment, **pipes) for _ in range(count)]
        for worker in workers:
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        return workers

    yield together
    for process in marked(str(tmp_path)):
        process.kill()


def hold(folder) -> Lease:
    """Take a folder that is free."""
    lease = take(folder)
    assert lease is not None
    return lease


def end(worker):
    """Return the exit code of a worker that ends by itself."""
    worker.communicate(timeout=PATIENCE_S)
    return worker.returncode


def noted(root, what):
    """Return the numbers of the cells that have noted something."""
    return sorted(map(int, (root / what).read_text().split())) if (root / what).exists() else []


@pytest.mark.parametrize("jobs", [1, 2])
def test_workers_share_the_cells_and_run_each_once(tmp_path, grid, start, jobs):
    workers = start(3, jobs)
    assert [end(worker) for worker in workers] == [0, 0, 0]
    assert noted(tmp_path, "started") == noted(tmp_path, "ended") == list(range(12))
    assert {cell.status() for cell in grid} == {"done"}
    assert not any(is_held(cell.folder) for cell in grid)


def test_what_a_killed_worker_had_in_hand_is_taken_over_and_nothing_else(tmp_path, grid, start):
    (tmp_path / "hold").write_text("")
    first, second = start(2)
    wait_for(lambda: 0 in noted(tmp_path, "started"))
    held = wait_for(lambda: holder(grid[0].folder))
    killed, other = (first, second) if held.pid == first.pid else (second, first)
    killed.kill()
    killed.communicate()
    wait_for(lambda: noted(tmp_path, "started").count(0) == 2)
    (tmp_path / "hold").unlink()
    assert end(other) == 0
    assert noted(tmp_path, "started") == [0, *range(12)]
    wait_for(lambda: marked(str(tmp_path)) == [])
    assert {cell.status() for cell in grid} == {"done"}


def test_a_worker_that_was_stopped_for_longer_than_its_lease_leaves_its_cell_to_the_next(tmp_path, grid, start):
    (tmp_path / "hold").write_text("")
    [stopped] = start(1, lease_s="1")
    wait_for(lambda: noted(tmp_path, "started") == [0])
    token = getattr(holder(grid[0].folder), "token", None)
    stopped.send_signal(signal.SIGSTOP)
    [other] = start(1)
    wait_for(lambda: noted(tmp_path, "started").count(0) == 2)  # the other one runs it, too
    stopped.send_signal(signal.SIGCONT)
    wait_for(lambda: len(marked(str(tmp_path))) == 3)  # the first has ended its own; two workers and a cell are left
    assert getattr(holder(grid[0].folder), "token", token) != token
    (tmp_path / "hold").unlink()
    assert [end(stopped), end(other)] == [0, 0]
    assert noted(tmp_path, "ended") == list(range(12))


def test_a_worker_ends_on_sigterm_and_gives_its_cell_back(tmp_path, grid, start):
    (tmp_path / "hold").write_text("")
    [worker] = start(1, wait="leave")
    wait_for(lambda: noted(tmp_path, "started") == [0])
    worker.send_signal(signal.SIGTERM)
    assert end(worker) == 128 + signal.SIGTERM
    assert marked(str(tmp_path)) == []
    assert holder(grid[0].folder) is None
    assert grid[0].status() == "waiting"
    (tmp_path / "hold").unlink()
    [again] = start(1)
    assert end(again) == 0
    assert noted(tmp_path, "ended") == list(range(12))


def test_a_worker_that_need_not_wait_leaves_the_cells_of_others(tmp_path, grid, start):
    with hold(grid[3].folder):
        [worker] = start(1, wait="leave")
        assert end(worker) == 1
    assert noted(tmp_path, "ended") == [0, 1, 2, *range(4, 12)]


def main_without_exit():
    """Run the command line, whose end with success is no exception here."""
    with suppress(SystemExit):
        main()


class Recorded:
    """An executor without processes: a cell is done at once, or is put off as often as a number says."""

    def __init__(self, put_off=None):
        self.jobs, self.submitted, self._put_off = 1, [], put_off or {}

    def submit(self, command, log):
        folder = log.parent
        self.submitted.append(folder.name)
        if self._put_off.get(folder.name, 0):
            self._put_off[folder.name] -= 1
            add_run(folder, "a" * 12)
            return 75
        finish_cell(folder, "done", wall_s=1.0)
        return 0

    def poll(self, handle):
        return handle

    def cancel(self, handle):
        raise AssertionError("nothing runs that could be cancelled")


def test_a_cell_whose_run_is_held_by_another_is_put_off_until_that_is_over(tmp_path, grid, monkeypatch):
    monkeypatch.setattr("studykit.batch.work._POLL_S", 0.0)
    run = grid[0].study_folder / "runs" / ("a" * 12)
    executor, lease = Recorded({grid[0].cell_id: 1}), hold(run)

    def watch(running):
        if len(executor.submitted) == 12:
            lease.release()

    assert work(grid, executor, watch=watch) == []
    ids = [cell.cell_id for cell in grid]
    assert executor.submitted == [*ids, ids[0]]  # the others first, and no second try before the run was free


def test_a_cell_that_is_put_off_again_and_again_has_failed(tmp_path, grid, monkeypatch):
    monkeypatch.setattr("studykit.batch.work._POLL_S", 0.0)
    executor = Recorded({grid[0].cell_id: 100})
    assert work(grid[:1], executor) == grid[:1]
    assert len(executor.submitted) == 21
    assert grid[0].status() == "failed"


def test_a_cell_that_another_worker_has_ended_in_the_meantime_is_not_run_again(tmp_path, grid, monkeypatch):
    executor, held = Recorded(), hold(grid[1].folder)

    def let_go(counts):
        if len(executor.submitted) == 11 and not held.is_lost:
            finish_cell(grid[1].folder, "failed", wall_s=1.0, error="broken")
            held.release()

    monkeypatch.setattr("studykit.batch.work._POLL_S", 0.0)
    monkeypatch.setattr("studykit.batch.work._FIRST_LOOK_S", 0.0)
    assert work(grid, executor, on_change=let_go) == [grid[1]]
    assert sorted(executor.submitted) == sorted(cell.cell_id for cell in grid if cell != grid[1])
    put_back(grid)
    assert work(grid, executor) == []
    assert executor.submitted[-1] == grid[1].cell_id


OPERATIONS = """
import sys
from pathlib import Path
from studykit.batch import grid, work
from studykit.executors.local import Local

root, count = Path(sys.argv[1]), []
cells = grid.plan("grid", folder=root / "notebooks", results_root=root / "results")
pool = work._Pool(cells, Local(1), 60)
files = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.link", "os.utime"}
sys.addaudithook(lambda *event: count.append(event[0]) if event[0] in files and str(root) in str(event[1]) else None)
for _ in range(3):
    count.clear()
    assert pool._take_next()
    print(len(count), *count)
"""


def test_taking_a_cell_costs_at_most_ten_file_operations(tmp_path, grid):
    with hold(grid[0].folder):  # which is looked at first
        command = [sys.executable, "-c", OPERATIONS, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    counts = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(counts) == 3
    assert max(counts) <= 10, done.stdout


def test_the_overview_shows_cells_holders_and_what_is_left(tmp_path, grid):
    states: list[tuple[Cell, Literal["done", "failed"]]] = [(grid[0], "done"), (grid[1], "failed")]
    for cell, status in states:
        spec = {"notebook": "01_fake", "notebooks": "..", "parameters": cell.parameters, "timeout_s": 60}
        write_cell(cell.folder, CellSpec(cell_id=cell.cell_id, **spec))
        finish_cell(cell.folder, status, wall_s=90.0, error="broken" if status == "failed" else None)
    assert Overview.of(grid).left_s() is None
    with hold(grid[2].folder):
        overview = Overview.of(grid)
        plain = overview.to_json()
    assert [line.status for line in overview.lines[:4]] == ["done", "failed", "running", "waiting"]
    assert overview.line() == "1 done, 1 failed, 1 running, 9 waiting; about 15 min left"
    assert plain["cells"][2]["holder"]["pid"] == os.getpid()
    assert plain["cells"][1]["doing"] == "broken"
    assert not overview.is_over


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["work", "grid", "--results", "elsewhere"], "sees no folder elsewhere: workers share one"),
        (["work", "gird"], "unknown batch 'gird'; did you mean 'grid'"),
        (["status", "grid", "-p", "nubmer=1"], "unknown parameter 'nubmer'; did you mean 'number'"),
        (["batch", "grid", "-o", "partition=gpu"], "executor 'local': unknown option 'partition'; known: none"),
        (["batch", "grid", "--executor", "slurm", "-o", "partitoin=gpu"], "unknown option 'partitoin'; did you mean"),
        (["batch", "grid", "--executor", "slurm", "-o", "gpus"], "-o 'gpus': write name=value"),
    ],
)
def test_wrong_input_is_refused_in_one_line_before_anything_is_written(
    tmp_path, grid, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["studykit", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert (end.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
    assert message in printed.err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_status_of_a_batch_is_shown(tmp_path, grid, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["studykit", "status", "grid", *options])
    with hold(grid[2].folder):
        main_without_exit()
    printed = capsys.readouterr().out
    if options:
        assert json.loads(printed)["running"] == 1
    else:
        assert f"process {os.getpid()} on" in printed
        assert "1 running, 11 waiting" in printed


def test_a_status_that_is_watched_ends_with_the_batch(tmp_path, grid, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["studykit", "status", "grid", "--watch"])
    left = list(grid)

    def one_more_ends(seconds):
        finish_cell(left.pop().folder, "done", wall_s=1.0)

    monkeypatch.setattr("studykit.batch.cli.time", SimpleNamespace(sleep=one_more_ends))
    main_without_exit()
    assert left == []
    assert "12 done" in capsys.readouterr().out


def test_a_results_folder_in_memory_is_refused_for_workers_elsewhere(tmp_path, monkeypatch):
    mount = SimpleNamespace(mountpoint=str(tmp_path.resolve()), fstype="tmpfs")
    monkeypatch.setattr("psutil.disk_partitions", lambda all: [mount])
    with pytest.raises(InputError, match=r"is in the memory of this machine \(tmpfs\)"):
        Workers(Slurm(), ["true"], tmp_path / "results" / "x.log", []).check()
