"""Leases: one holder at a time, whichever process dies, stops, comes back or looks at an old view of the folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from fake_notebooks import PATIENCE_S, wait_for

from studykit.errors import InputError
from studykit.files import leases
from studykit.files.leases import Lease, LeaseLost, holder, is_held, is_held_by, take

RACE = """
import sys
from pathlib import Path
from studykit.files.leases import take
root, rounds = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
held = [(number, lease) for number in range(rounds) if (lease := take(root / str(number)))]
print(*(number for number, _ in held), flush=True)
sys.stdin.readline()
"""
HOLD = """
import sys, time
from pathlib import Path
from studykit.files.leases import LeaseLost, take
lease = take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
try:
    lease.check()
    print("still held", flush=True)
except LeaseLost as lost:
    print("lost:", lost, flush=True)
time.sleep(600)
"""
TAKING_TURNS = """
import os, sys, time
from pathlib import Path
from studykit.files.leases import take
folder, turns = Path(sys.argv[1]), int(sys.argv[2])
while turns:
    if lease := take(folder):
        with lease:
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # fails if another one is inside
            time.sleep(0.001)
            os.unlink(folder / "inside")
        turns -= 1
"""


def python(code, *arguments, **environment) -> Any:
    """Start a program with pipes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def say(process):
    """Let a program go on, and return its next line."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.fixture
def elsewhere(monkeypatch):
    """Look at leases as another machine does, to which process ids mean nothing."""
    monkeypatch.setattr(leases, "machine_id", lambda: "another machine")


@pytest.fixture
def holding(tmp_path):
    """Start a process that holds a folder with a lease of a second, and end it."""
    process = python(HOLD, tmp_path, STUDYKIT_LEASE_S="1")
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def hold(folder) -> Lease:
    """Take a folder that is free."""
    lease = take(folder)
    assert lease is not None
    return lease


def leave_stale(folder, age_s=3600.0, **changes):
    """Leave the lease of a process that died on another machine, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    gone = {"host": "node7", "machine": "node7 x 1", "pid": 1, "began": "1", "token": "0" * 12, "since": ""}
    (folder / "lease-4").write_text(json.dumps(gone | {"lease_s": 60.0} | changes))
    os.utime(folder / "lease-4", (time.time() - age_s, time.time() - age_s))
    return folder / "lease-4"


def test_a_folder_is_held_once_and_given_back(tmp_path):
    lease = hold(tmp_path / "new" / "folder")
    with lease:
        assert take(lease.folder) is None
        assert is_held(lease.folder)
        assert is_held_by(lease.folder, lease.token)
        assert not is_held_by(lease.folder, "0" * 12)
        found = holder(lease.folder)
        assert found is not None
        assert (found.pid, found.token) == (os.getpid(), lease.token)
        lease.check()
    assert not is_held(tmp_path / "new" / "folder")
    assert holder(tmp_path / "new" / "folder") is None
    assert not is_held_by(tmp_path / "new" / "folder", lease.token)
    with hold(lease.folder) as again:
        assert [file.name for file in lease.folder.iterdir()] == ["lease-2"]
        assert again.token != lease.token


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_processes_one_gets_each_folder(tmp_path, stale):
    rounds = 150
    if stale:
        for number in range(rounds):
            leave_stale(tmp_path / str(number))
    racing = [python(RACE, tmp_path, rounds) for _ in range(4)]
    for process in racing:
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        process.stdin.write("\n")
        process.stdin.flush()
    held = [process.stdout.readline().split() for process in racing]
    assert sorted(number for numbers in held for number in numbers) == sorted(map(str, range(rounds)))
    assert sum(map(bool, held)) > 1  # it was a race
    for process in racing:
        process.communicate("\n")


def test_processes_that_take_turns_are_never_inside_together(tmp_path):
    turning = [python(TAKING_TURNS, tmp_path, 40) for _ in range(3)]
    for process in turning:
        process.communicate(timeout=PATIENCE_S)
    assert [process.returncode for process in turning] == [0, 0, 0]


def test_what_a_killed_process_held_is_free_before_its_lease_ends(tmp_path, holding, monkeypatch):
    monkeypatch.setattr(leases, "GRACE", 3600.0)
    assert take(tmp_path) is None
    holding.kill()
    wait_for(lambda: not is_held(tmp_path), 30.0)  # although it is not reaped, and its lease lasts
    assert take(tmp_path) is not None


def test_a_lease_that_is_not_renewed_is_taken_over_by_another_machine(tmp_path, holding, elsewhere):
    assert take(tmp_path) is None
    assert getattr(holder(tmp_path), "lease_s", None) == 1.0
    holding.kill()
    assert wait_for(lambda: take(tmp_path)) is not None


def test_a_process_that_comes_back_after_its_lease_learns_that_it_is_lost(tmp_path, holding):
    holding.send_signal(signal.SIGSTOP)
    lease = wait_for(lambda: take(tmp_path))
    holding.send_signal(signal.SIGCONT)
    assert say(holding) == (
        f"lost: {tmp_path.name} was taken over by process {os.getpid()} on {socket.gethostname()}, since this one was "
        "stopped for longer than its lease of 1 s: the work goes on there"
    )
    assert is_held_by(tmp_path, lease.token)


def test_a_process_that_comes_back_keeps_what_no_other_has_taken(tmp_path, holding):
    holding.send_signal(signal.SIGSTOP)
    wait_for(lambda: not is_held(tmp_path))
    holding.send_signal(signal.SIGCONT)
    assert say(holding) == "still held"
    assert [file.name for file in tmp_path.iterdir()] == ["lease-2"]  # a new one: none can take over the old one now
    assert take(tmp_path) is None


def test_a_lease_is_renewed_while_its_process_works(tmp_path, holding, elsewhere):
    file = tmp_path / "lease-1"
    first = file.stat().st_mtime_ns
    wait_for(lambda: file.stat().st_mtime_ns > first)
    assert is_held(tmp_path)


def test_an_old_view_of_the_folder_takes_nothing(tmp_path, monkeypatch):
    leave_stale(tmp_path)
    numbers = leases._numbers
    with hold(tmp_path) as first:  # lease-5
        first.release()
        with hold(tmp_path) as second:  # lease-6; lease-5 is gone
            views = iter([[0, 4]])  # and after the creation of a file a new one
            monkeypatch.setattr(leases, "_numbers", lambda folder: next(views, None) or numbers(folder))
            monkeypatch.setattr(leases, "_is_free", lambda folder, number: True)
            assert take(tmp_path) is None
            assert [file.name for file in tmp_path.iterdir()] == ["lease-6"]
            second.renew()


def test_clocks_of_hosts_do_not_matter(tmp_path, monkeypatch):
    leave_stale(tmp_path / "fresh", age_s=30.0)
    leave_stale(tmp_path / "stale", age_s=90.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert take(tmp_path / "fresh") is None
    assert take(tmp_path / "stale") is not None


def test_a_lease_that_its_process_did_not_live_to_write_becomes_free(tmp_path):
    (tmp_path / "lease-3").write_text("")
    assert take(tmp_path) is None
    os.utime(tmp_path / "lease-3", (0, 0))
    assert take(tmp_path) is not None


def test_a_lease_in_a_folder_that_is_gone_is_lost(tmp_path):
    lease = hold(tmp_path / "folder")
    (tmp_path / "folder" / "lease-1").unlink()
    with pytest.raises(LeaseLost):
        lease.renew()
    lease.release()
    assert list((tmp_path / "folder").iterdir()) == []


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan"])
def test_a_duration_that_is_none_is_refused(tmp_path, monkeypatch, seconds):
    monkeypatch.setenv("STUDYKIT_LEASE_S", seconds)
    with pytest.raises(InputError, match=f"STUDYKIT_LEASE_S='{seconds}': write a number of seconds above 0"):
        take(tmp_path)


OPERATIONS = """
import os, sys
from pathlib import Path
from studykit.files.leases import take
root, count = Path(sys.argv[1]), []
names = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.link", "os.utime"}
inside = lambda event, arguments: event in names and str(root) in str(arguments)
sys.addaudithook(lambda *heard: count.append(heard[0]) if inside(*heard) else None)
for folder in ("free", "stale", "given back"):
    count.clear()
    assert take(root / folder)
    print(len(count), *count)
"""


def test_taking_a_folder_costs_few_file_operations(tmp_path):
    leave_stale(tmp_path / "stale")
    with hold(tmp_path / "given back"):
        pass
    with python(OPERATIONS, tmp_path) as process:
        output, _ = process.communicate()
    counts = [int(line.split()[0]) for line in output.splitlines()]
    assert len(counts) == 3
    assert max(counts) <= 7, output  # three are left for reading whether there is work to do


def test_a_holder_is_named(tmp_path):
    lease = hold(tmp_path)
    assert str(holder(tmp_path)) == f"process {os.getpid()} on {socket.gethostname()}"
    lease.release()
