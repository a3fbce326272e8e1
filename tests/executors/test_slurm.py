"""Slurm: the script that is submitted, what is refused, and a real controller with two nodes on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_notebooks import PATIENCE_S, everything_under, wait_for, write_batch, write_notebook
from slurm_cluster import INSTALLED, ask, slurm
from training_grid import CELLS, STEPS, assert_each_trained_once, noted, write_grid

from studykit.batch.grid import plan
from studykit.errors import InputError
from studykit.executors import WorkersElsewhere, get_executor
from studykit.executors.slurm import Slurm
from studykit.files.leases import is_held

CELL = """
import os, pathlib, time
here = pathlib.Path(place)
with (here / "started").open("a") as stream:
    stream.write(f"{number} {os.environ['SLURMD_NODENAME']}\\n")
while (here / "hold").exists() and number == 0:
    time.sleep(0.05)
with (here / "ended").open("a") as stream:
    stream.write(f"{number}\\n")
"""


def on_slurm(test):
    """Mark a test that needs a real Slurm."""
    test = pytest.mark.skipif(not INSTALLED, reason="Slurm and munge are not installed, or this is not root")(test)
    return pytest.mark.slurm(pytest.mark.slow(test))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a controller and two nodes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", "")  # set by the cluster, and put back
        patch.delenv("OMP_NUM_THREADS", raising=False)
        with slurm(tmp_path_factory.mktemp("slurm")) as running:
            yield running


def lines_of(file):
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def grid(tmp_path):
    """Write a grid of twelve cells that do nothing."""
    write_notebook(tmp_path / "notebooks", "01_fake", CELL)
    entry = {"notebook": "01_fake", "grid": {"number": list(range(12)), "place": str(tmp_path)}}
    write_batch(tmp_path / "notebooks", "grid", [entry])


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """Return a function that submits a grid."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def submit(*options, jobs=2):
        command = [sys.executable, "-m", "studykit.cli", "batch", "grid", "--executor", "slurm", "--jobs", str(jobs)]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return submit


@on_slurm
def test_every_cell_ends_once_on_two_nodes_although_a_job_is_taken_away_and_the_batch_is_submitted_twice(
    cluster, grid, batch, tmp_path
):
    (tmp_path / "hold").write_text("")
    submitted = batch("-o", "gpus=1", "-o", "time=10") + batch("-o", "gpus=1")
    numbers = [line.split("scancel ")[1].split("`")[0] for line in submitted.splitlines() if "scancel" in line]
    assert len(numbers) == 2
    held = wait_for(lambda: next((line for line in lines_of(tmp_path / "started") if line.startswith("0 ")), None))
    wait_for(lambda: len(lines_of(tmp_path / "ended")) >= 2)
    job = next(
        line.split()[0]
        for line in ask("squeue", "--noheader", "--states=R", "--format=%i %N").splitlines()
        if line.split()[1] == held.split()[1]
    )
    subprocess.run(["scontrol", "requeue", job], check=True)  # as when a job is taken away
    wait_for(lambda: len([line for line in lines_of(tmp_path / "started") if line.startswith("0 ")]) == 2)
    (tmp_path / "hold").unlink()
    cells = plan("grid", folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    wait_for(lambda: {cell.status() for cell in cells} == {"done"})
    assert sorted(map(int, lines_of(tmp_path / "ended"))) == list(range(12))
    assert len(lines_of(tmp_path / "started")) == 13  # twice only what was in hand
    assert {line.split()[1] for line in lines_of(tmp_path / "started")} == {"n1", "n2"}


def held_on(root, node, but=""):
    """Wait until a cell waits in the middle of its training on a node; return its number, the task and the job.

    A task is one worker of an array; the array's own number would be all of them.
    """
    notes = wait_for(lambda: [note for note in noted(root, "held") if note[1] == node and "_".join(note[2:4]) != but])
    number, _, array, task, job, _ = notes[0]
    return int(number), f"{array}_{task}", job


def end_time_of(task, minutes):
    """Let the time limit of a task be near, and wait until it has given its cell back."""
    subprocess.run(["scontrol", "update", f"JobId={task}", f"TimeLimit={minutes}"], check=True)
    wait_for(lambda: task not in ask("squeue", "--noheader", "--states=R", "--format=%i").split())


@on_slurm
@pytest.mark.faults
def test_every_run_ends_once_although_time_ends_a_node_dies_and_a_worker_is_stopped(
    cluster, batch, tmp_path, monkeypatch, plain_spec, stage, one_thread
):
    """Two arrays of two workers on two nodes, so that others are queued when the first ones end."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("STUDYKIT_LEASE_S", "2")
    arms = write_grid(tmp_path, [plain_spec(stage(steps=STEPS), teacher=False, seed=seed) for seed in range(CELLS)])
    began = time.monotonic()
    batch("-o", "gpus=1")
    batch("-o", "gpus=1")
    out_of_time, first, _ = held_on(tmp_path, "n1")
    killed, _, _ = held_on(tmp_path, "n2")
    end_time_of(first, int((time.monotonic() - began) / 60) + 2)
    stopped, _, third = held_on(tmp_path, "n1", but=first)
    cluster.kill_node("n2")
    suspended = [process for process in cluster.processes("n1", third) if process.name().startswith("python")]
    for process in suspended:
        process.suspend()
    (tmp_path / "hold").unlink()
    cluster.start_node("n2")
    cells = plan("grid", folder=tmp_path / "notebooks", results_root=tmp_path / "results")
    wait_for(lambda: {cell.status() for cell in cells} == {"done"}, 4 * PATIENCE_S)
    wait_for(lambda: not any(is_held(cell.folder) for cell in cells))
    before = {name: content for name, content in everything_under(tmp_path / "results").items() if "log" not in name}
    for process in suspended:
        process.resume()
    wait_for(lambda: not any(process.is_running() for process in suspended))
    after = {name: content for name, content in everything_under(tmp_path / "results").items() if "log" not in name}
    assert after == before
    assert_each_trained_once(tmp_path, arms, {killed, stopped} - {out_of_time})


@on_slurm
def test_what_slurm_refuses_is_refused_in_one_line(cluster, tmp_path):
    executor = Slurm(2, gpus=3)
    executor.check(0.0)
    with pytest.raises(InputError, match=r"executor .slurm.: .*configuration is not available"):
        executor.submit(["true"], tmp_path / "x.log")


def test_the_script_has_the_options_and_the_worker(tmp_path):
    executor = get_executor("slurm", 3, {"partition": "gpu", "cpus-per-task": 4, "exclusive": True, "requeue": False})
    assert isinstance(executor, WorkersElsewhere)
    script = executor.script(["python", "-m", "x", "two words"], tmp_path / "my.log")
    options = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert options == [
        "job-name=studykit-my",
        f"output={tmp_path}/my-%A_%a.log",
        "open-mode=append",
        "partition=gpu",
        "cpus-per-task=4",
        "exclusive",
        "array=0-2",
        "signal=B:USR1@120",
    ]
    assert "\npython -m x 'two words' &\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(("ends_by", "code", "requeued"), [("USR1", 143, True), ("TERM", 143, False), (None, 3, False)])
def test_a_job_near_its_time_limit_is_queued_again_and_one_that_is_cancelled_is_not(
    tmp_path, monkeypatch, ends_by, code, requeued
):
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/requeued\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.chdir(tmp_path)
    worker = (
        "import pathlib, sys, time; pathlib.Path('ready').touch(); time.sleep(600 * (len(sys.argv) > 1)); sys.exit(3)"
    )
    ending = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
    arguments = ["x"] if ends_by else []
    script = Slurm().script([sys.executable, "-c", ending + worker, *arguments], tmp_path / "my.log")
    with subprocess.Popen(["bash", "-c", script]) as job:
        wait_for((tmp_path / "ready").exists)
        if ends_by:
            job.send_signal(getattr(signal, f"SIG{ends_by}"))
        assert job.wait(PATIENCE_S) == code
    assert (tmp_path / "requeued").exists() == requeued
    assert not requeued or (tmp_path / "requeued").read_text() == "requeue 7\n"


def test_a_node_that_does_not_see_the_results_says_so(tmp_path):
    script = Slurm().script(["true"], tmp_path / "gone" / "my.log")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"does not see {Path.cwd()}, {tmp_path}/gone or " in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitoin": "gpu"}, "executor 'slurm': unknown option 'partitoin'; did you mean 'partition'?"),
        ({"array": "0-3"}, "unknown option 'array'"),
        ({"time": [1]}, "executor 'slurm': time must be"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        get_executor("slurm", 1, options)


def test_a_machine_without_slurm_and_too_little_memory_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no sbatch on the path"):
        Slurm().check(0.0)
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    Slurm(mem="8G").check(7e9)
    Slurm(mem=0).check(7e9)
    with pytest.raises(InputError, match=r"mem=4096 is 4\.3 GB, a cell needs about 7\.0 GB"):
        Slurm(mem=4096).check(7e9)
