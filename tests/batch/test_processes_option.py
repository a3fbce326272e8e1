"""`--processes` and `--shard` reach every process that a batch starts, here and elsewhere."""

from pathlib import Path

import pytest

from studykit.batch.cli import _worker_command, set_processes
from studykit.errors import InputError
from studykit.results.environment import PROCESSES, SHARDING, processes_wanted


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    for name in (PROCESSES, SHARDING):
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)


def worker():
    return _worker_command("smoke", 60, [], Path("notebooks"), Path("results"))


def test_workers_elsewhere_compute_runs_by_as_many_processes():
    assert processes_wanted() == 1
    assert not [part for part in worker() if part.startswith(("--processes", "--shard"))]
    set_processes(4, shard=True)
    assert processes_wanted() == 4
    assert {"--processes=4", "--shard"} <= set(worker())


def test_weights_are_divided_among_processes_only():
    with pytest.raises(InputError, match="--shard divides weights among processes: give their number"):
        set_processes(None, shard=True)


@pytest.mark.parametrize("text", ["0", "two", "-1"])
def test_a_number_of_processes_that_is_none_is_refused(text, monkeypatch):
    monkeypatch.setenv(PROCESSES, text)
    with pytest.raises(InputError, match=f"STUDYKIT_PROCESSES is '{text}': give the number of processes"):
        processes_wanted()
