"""The local pool: separate sessions, shared cores, and an end that leaves no process."""

import os
import sys

import psutil
import pytest
from fake_notebooks import PATIENCE_S, wait_for

from studykit.errors import InputError
from studykit.executors import EXECUTORS
from studykit.executors._processes import groups_of
from studykit.executors.local import Local
from studykit.results.environment import PROCESSES

FAMILY = """
import os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(sys.argv[1])
depth = int(sys.argv[2])
if len(sys.argv) > 3:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if depth:  # each generation leads a separate session, as a notebook's kernel does
    command = [sys.executable, *sys.orig_argv[1:3], str(here), str(depth - 1), *sys.argv[3:]]
    subprocess.Popen(command, start_new_session=True)
(here / f"pid-{depth}.part").write_text(str(os.getpid()))
(here / f"pid-{depth}.part").rename(here / f"pid-{depth}")
time.sleep(600)
"""


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("deaf", [[], ["deaf"]])
def test_cancel_ends_every_generation_before_it_returns(tmp_path, monkeypatch, deaf):
    monkeypatch.setattr("studykit.executors.local._GRACE_S", 1.0)
    executor = Local()
    handle = executor.submit([sys.executable, "-c", FAMILY, str(tmp_path), "2", *deaf], tmp_path / "log.txt")
    pids = [
        int(wait_for((tmp_path / f"pid-{depth}").exists) and (tmp_path / f"pid-{depth}").read_text())
        for depth in range(3)
    ]
    assert all(map(alive, pids))
    executor.cancel(handle)
    assert not any(map(alive, pids)), (tmp_path / "log.txt").read_text()
    assert executor.poll(handle) is not None


def test_cancelling_what_has_ended_is_no_fault(tmp_path):
    executor = Local()
    handle = executor.submit([sys.executable, "-c", "pass"], tmp_path / "log.txt")
    assert handle.wait(PATIENCE_S) == 0
    executor.cancel(handle)
    assert executor.poll(handle) == 0


def test_output_goes_to_the_log_which_grows(tmp_path):
    executor = Local()
    for word in ("first", "second"):
        code = f"import sys; print('{word}'); print('to stderr', file=sys.stderr); sys.exit(3)"
        assert executor.submit([sys.executable, "-c", code], tmp_path / "log.txt").wait(PATIENCE_S) == 3
    assert sorted((tmp_path / "log.txt").read_text().split("\n")) == ["", "first", "second", "to stderr", "to stderr"]


@pytest.mark.parametrize("jobs", [1, 2, 64])
def test_each_process_has_its_share_of_the_cores(tmp_path, monkeypatch, jobs):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = (
        "import os; env = os.environ;"
        "print(env['OMP_NUM_THREADS'], env['STUDYKIT_FOLLOW_PARENT'], os.getsid(0) == os.getpid())"
    )
    assert Local(jobs).submit([sys.executable, "-c", code], tmp_path / "log.txt").wait(PATIENCE_S) == 0
    share = max(1, (os.cpu_count() or 1) // jobs)
    assert (tmp_path / "log.txt").read_text().split() == [str(share), str(os.getpid()), "True"]


def test_a_number_of_threads_set_by_the_user_holds(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    assert Local(2).submit([sys.executable, "-c", code], tmp_path / "log.txt").wait(PATIENCE_S) == 0
    assert (tmp_path / "log.txt").read_text() == "7\n"


def test_each_run_of_several_processes_has_as_many_gpus_and_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv(PROCESSES, "2")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    executor = Local(2)
    monkeypatch.setattr(executor, "_load", {"0": 1, "1": 0, "2": 1, "3": 0}.get)
    executor.submit([sys.executable, "-c", code], tmp_path / "log.txt").wait(PATIENCE_S)
    assert (tmp_path / "log.txt").read_text() == "1,3 2\n"
    monkeypatch.setenv(PROCESSES, "8")
    with pytest.raises(InputError, match="--processes 8 needs as many GPUs, and 4 can be seen here"):
        Local()


def test_the_callers_own_group_is_never_among_those_to_end():
    assert os.getpgrp() not in groups_of(os.getpid())
    assert groups_of(2**22 + 1) == set()


@pytest.mark.parametrize("name", EXECUTORS.names())
def test_every_executor_has_what_a_batch_asks_for(name):
    executor = EXECUTORS.member(name)(jobs=2)
    assert executor.jobs == 2
    assert all(callable(getattr(executor, method)) for method in ("submit", "poll", "cancel"))
    assert EXECUTORS.describe(name)
