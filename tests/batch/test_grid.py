"""Batches of notebooks that do next to nothing: skipped, isolated, timed out, killed, and continued."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_notebooks import (
    MARKER,
    PATIENCE_S,
    marked,
    read_record,
    wait_for,
    write_batch,
    write_notebook,
)

from studykit.batch.grid import failures, plan
from studykit.batch.work import run_batch
from studykit.errors import InputError
from studykit.executors.local import Local
from studykit.files.leases import is_held_by

BEHAVIOUR = """
import json, os, pathlib, signal, sys, time
here = pathlib.Path(place)
(here / f"started-{number}").write_text("")
if number == 1:
    import studykit
    from studykit.results.cells import add_run, cell_of_kernel
    add_run(cell_of_kernel(), "f" * 12)
    print("fine", sys.prefix + "/lib", studykit.__file__, pathlib.Path.home() / "x")
if number == 2:
    raise ValueError("number 2 is broken\\nand says so at length")
if number == 3:
    os.kill(os.getpid(), signal.SIGKILL)
if number in (4, 5):  # a rendezvous: each waits until the other has started
    deadline = time.monotonic() + 300
    while not (here / f"started-{9 - number}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert time.monotonic() < deadline, "the other one never started beside me"
    (here / f"threads-{number}").write_text(os.environ["OMP_NUM_THREADS"])
"""
HANG = """
import os, pathlib, subprocess, sys, time
here = pathlib.Path(place)
if not (here / "quick").exists():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    (here / "hangs").write_text("")
    time.sleep(600)
"""
DRIVER = """
import signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background job of a shell ignores
from pathlib import Path
from studykit.batch import grid as batch
from studykit.batch import work
from studykit.executors.local import Local
root, late = Path(sys.argv[1]), sys.argv[2] == "late"
if late:  # the clock jumps once the cell hangs, however long it took to start
    clock = lambda: time.monotonic() + 1000 * (root / "hangs").exists()
    work.time = types.SimpleNamespace(monotonic=clock, sleep=time.sleep)
cells = batch.plan("hang", folder=root / "notebooks", results_root=root / "results")
sys.exit(len(work.run_batch(cells, Local(jobs=1), timeout_s=600)))
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run five cells two at a time: one fine, one that fails, one that kills its kernel, two that meet."""
    root = tmp_path_factory.mktemp("batch")
    write_notebook(root / "notebooks", "01_fake", BEHAVIOUR)
    grid = {"number": [4, 5, 1, 2, 3], "place": str(root)}
    write_batch(root / "notebooks", "fake", [{"notebook": "01_fake", "grid": grid}])
    cells = plan("fake", folder=root / "notebooks", results_root=root / "results")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        failed = run_batch(cells, Local(jobs=2), on_change=seen.append)
    return root, {cell.parameters["number"]: cell for cell in cells}, failed, seen


def test_a_failed_cell_stops_no_other(finished):
    _, cells, failed, _ = finished
    assert {number: cell.status() for number, cell in cells.items()} == {
        1: "done",
        2: "failed",
        3: "failed",
        4: "done",
        5: "done",
    }
    assert [cell.parameters["number"] for cell in failed] == [2, 3]


def test_a_failure_is_recorded_in_one_line(finished):
    _, cells, failed, _ = finished
    assert read_record(cells[2].folder)["error"] == "ValueError: number 2 is broken"
    assert read_record(cells[3].folder)["error"].startswith("DeadKernelError")
    first = failures(failed)[0]
    assert first["cell"] == cells[2].cell_id
    assert first["parameters"]["number"] == 2
    assert first["error"] == "ValueError: number 2 is broken"
    assert Path(first["log"]).is_file()


def test_the_runs_that_a_notebook_opens_are_its_cells(finished):
    _, cells, _, _ = finished
    assert read_record(cells[1].folder)["runs"] == ["f" * 12]
    assert read_record(cells[4].folder)["runs"] == []


def test_two_jobs_run_two_at_a_time(finished):
    root, _, _, seen = finished
    assert (root / "threads-4").exists()
    assert (root / "threads-5").exists()
    assert max(counts["running"] for counts in seen) == 2


def test_jobs_share_the_cores(finished):
    root, _, _, _ = finished
    assert (root / "threads-4").read_text() == str(max(1, (os.cpu_count() or 1) // 2))


def test_counts_add_up(finished):
    *_, seen = finished
    assert all(sum(counts.values()) == 5 and min(counts.values()) >= 0 for counts in seen), seen
    assert seen[-1] == {"done": 3, "failed": 2, "running": 0, "waiting": 0}


def test_an_executed_notebook_carries_its_parameters_and_no_path_of_this_machine(finished):
    root, cells, _, _ = finished
    for number in (1, 2):
        text = (cells[number].folder / "notebook.ipynb").read_text(encoding="utf-8")
        notebook = json.loads(text)
        assert not any("papermill" in part["metadata"] for part in (notebook, *notebook["cells"]))
        assert any(f"number = {number}" in "".join(cell["source"]) for cell in notebook["cells"])
        without_parameters = text.replace(json.dumps(f'place = "{root}"\n')[1:-1], "")
        for place in (root, Path(__file__).parents[2], sys.prefix, platform.node()):
            assert str(place) not in without_parameters


def test_the_cell_file_and_record_name_no_machine(finished):
    root, cells, _, _ = finished
    cell = json.loads((cells[1].folder / "cell.json").read_text())
    assert cell["notebooks"] == "../../../../notebooks"
    assert cell["parameters"].pop("place") == str(root)
    assert str(root) not in json.dumps(cell) + json.dumps(read_record(cells[1].folder))


def test_outputs_leave_no_path_of_this_machine(finished):
    _, cells, _, _ = finished
    text = (cells[1].folder / "notebook.ipynb").read_text(encoding="utf-8")
    assert "fine <python>/lib ./studykit/__init__.py ~/x" in text


def test_what_a_notebook_prints_is_in_its_log(finished):
    _, cells, _, _ = finished
    assert "fine" in (cells[1].folder / "log.txt").read_text(encoding="utf-8")


class Recorded:
    """An executor without processes: a submitted cell is done at once."""

    def __init__(self):
        self.jobs, self.submitted = 1, []

    def submit(self, command, log):
        folder = log.parent
        assert command[1:-1] == ["-m", "studykit.batch.execute", str(folder)]
        assert is_held_by(folder, command[-1])
        assert not (folder / "record.json").exists()
        (folder / "record.json").write_text(json.dumps({"status": "done", "runs": [], "wall_s": 0.0, "error": None}))
        self.submitted.append(json.loads((folder / "cell.json").read_text(encoding="utf-8"))["parameters"]["number"])
        return folder

    def poll(self, handle):
        return 0

    def cancel(self, handle):
        raise AssertionError("nothing runs that could be cancelled")


def test_done_cells_are_skipped_and_failed_ones_tried_again(finished, tmp_path):
    root, _, _, _ = finished
    shutil.copytree(root / "results", tmp_path / "results")
    cells = plan("fake", folder=root / "notebooks", results_root=tmp_path / "results")
    executor = Recorded()
    assert run_batch(cells, executor) == []
    assert executor.submitted == [2, 3]
    assert run_batch(cells, executor) == []
    assert executor.submitted == [2, 3]


def test_a_new_file_is_the_whole_edit_for_a_new_notebook(tmp_path):
    write_notebook(tmp_path / "notebooks", "01_fake")
    file = write_batch(tmp_path / "notebooks", "any", [{"notebook": "77_new", "grid": {"number": [3, 5]}}])
    with pytest.raises(InputError, match="unknown notebook '77_new'"):
        plan(str(file), folder=tmp_path / "notebooks", results_root=tmp_path / "results")

    write_notebook(tmp_path / "notebooks", "77_new", "print(number)")

    cells = plan(str(file), folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    executor = Recorded()
    assert run_batch(cells, executor) == []
    assert executor.submitted == [3, 5]
    assert [cell.status() for cell in cells] == ["done", "done"]


def test_prose_may_change_but_code_makes_a_cell_new(finished):
    root, cells, _, _ = finished
    file = root / "notebooks" / "01_fake.ipynb"
    original = file.read_text()
    known = {cell.cell_id for cell in cells.values()}
    try:
        file.write_text(original.replace("# A notebook", "# Another title"))
        assert {c.cell_id for c in plan("fake", folder=root / "notebooks", results_root=root / "results")} == known
        file.write_text(original.replace("fine", "finer"))
        assert not known & {c.cell_id for c in plan("fake", folder=root / "notebooks", results_root=root / "results")}
    finally:
        file.write_text(original)


@pytest.fixture
def hanging(tmp_path):
    """Write a batch whose one cell hangs, with a child in a separate session, until a file ends it."""
    write_notebook(tmp_path / "notebooks", "01_hang", HANG)
    write_batch(tmp_path / "notebooks", "hang", [{"notebook": "01_hang", "grid": {"place": str(tmp_path)}}])

    def start(clock="right"):
        command = [sys.executable, "-c", DRIVER, str(tmp_path), clock]
        return subprocess.Popen(command, env=os.environ | {MARKER: str(tmp_path)}, stderr=subprocess.PIPE, text=True)

    yield tmp_path, start
    for process in marked(str(tmp_path)):
        process.kill()


def only_cell(root):
    [cell] = plan("hang", folder=root / "notebooks", results_root=root / "results")
    return cell


def test_a_cell_out_of_time_is_ended_with_all_it_started(hanging):
    root, start = hanging
    with start(clock="late") as driver:
        assert driver.wait(PATIENCE_S) == 1
        assert marked(str(root)) == []  # at once: the next cell may need what they held
    assert read_record(only_cell(root).folder)["error"] == "stopped after 600 s"


def test_an_interrupted_or_killed_batch_leaves_nothing_running_and_continues(hanging):
    root, start = hanging
    with start() as driver:
        wait_for((root / "hangs").exists)
        assert len(marked(str(root))) >= 4  # batch, cell, kernel, child
        driver.send_signal(signal.SIGINT)
        assert driver.wait(PATIENCE_S) not in (0, 1)
        assert marked(str(root)) == []
    assert only_cell(root).status() == "waiting"
    (root / "hangs").unlink()
    with start() as driver:
        wait_for((root / "hangs").exists)
        driver.kill()
    (root / "quick").write_text("")
    with start() as driver:  # at once, while the old cell may still be ending
        assert driver.wait(PATIENCE_S) == 0, driver.stderr.read()
    wait_for(lambda: marked(str(root)) == [])
    assert only_cell(root).status() == "done"


def test_a_cell_whose_batch_is_gone_before_it_starts_ends_by_itself(hanging):
    root, _ = hanging
    cell = only_cell(root)
    cell.folder.mkdir(parents=True)
    environment = os.environ | {MARKER: str(root), "STUDYKIT_FOLLOW_PARENT": "1"}  # adopted by another already
    content = {"cell_id": cell.cell_id, "notebook": "01_hang", "notebooks": "../../../../notebooks"}
    (cell.folder / "cell.json").write_text(json.dumps(content | {"parameters": {}, "timeout_s": 60}))
    command = [sys.executable, "-m", "studykit.batch.execute", str(cell.folder), "0" * 12]
    done = subprocess.run(command, env=environment, start_new_session=True, timeout=PATIENCE_S)
    assert done.returncode == -signal.SIGKILL
    assert not (root / "hangs").exists()
