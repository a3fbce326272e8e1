"""Workers in virtual time: every cell ends once, whatever dies or is stopped; and what virtual time is made of."""

import os

import pytest

from benchmarks import simulated_workers
from benchmarks.shared_folder import simulate
from benchmarks.virtual_time import Clock, Event, Files, Lock, Process, Times


@pytest.fixture
def many_deaths(monkeypatch):
    """Let workers die, and be stopped, every ten minutes."""
    monkeypatch.setattr(simulated_workers, "BETWEEN_DEATHS_S", 600.0)
    monkeypatch.setattr(simulated_workers, "_BETWEEN_STOPS_S", 600.0)


@pytest.mark.parametrize("latency_ms", [1.0, 500.0])
def test_every_cell_ends_once_and_nothing_is_computed_twice_but_what_was_lost(many_deaths, latency_ms):
    found = simulate(cells=60, workers=8, latency_ms=latency_ms)
    assert found["deaths"] > 2
    assert found["stops"] > 2
    assert (found["not_ended"], found["ended_twice"]) == (0, 0)
    assert found["begun_again"] <= found["deaths"] + found["stops"]
    assert found["most_operations_to_take"] <= 10
    assert found["begun_again"] > 0
    assert 0 < found["double"] < 1
    assert found["virtual_s"] > found["ideal_s"]


def test_a_slower_server_costs_time_and_more_workers_ask_more_of_it():
    near, far = simulate(cells=20, workers=4, latency_ms=1.0), simulate(cells=20, workers=4, latency_ms=1000.0)
    assert near["on_files"] < far["on_files"]
    assert near["operations_per_s"] < simulate(cells=40, workers=8, latency_ms=1.0)["operations_per_s"]


def test_tasks_take_turns_in_virtual_time():
    clock, notes = Clock(), []
    times, lock, event = Times(clock), Lock(clock), Event(clock)

    def first():
        with lock:
            times.sleep(3.0)
            notes.append(("first", clock.now))
        event.set()

    def second():
        times.sleep(1.0)
        with lock:
            notes.append(("second", clock.now))
        notes.append((event.wait(100.0), clock.now))

    clock.start(Process("a"), first, "")
    clock.start(Process("b"), second, "")
    clock.run()
    assert notes == [("first", 3.0), ("second", 3.0), (True, 3.0)]


def test_operations_wait_for_the_server_and_a_dead_process_does_none(tmp_path):
    clock = Clock()
    files, process, ended = Files(clock, tmp_path, latency_s=0.2, capacity=10.0), Process("a"), []

    def look():
        for _ in range(3):
            os.listdir(tmp_path)
            ended.append(round(clock.now, 6))

    def make():
        try:
            os.listdir(tmp_path)
        finally:
            (tmp_path / "late").touch()

    with files.patched():
        clock.start(Process("b"), look, "looking")
        clock.start(process, make, "making")
        clock.at(0.01, lambda: clock.kill(process))
        clock.run()
    assert ended == [0.3, 0.6, 0.9]
    assert not (tmp_path / "late").exists()
    assert files.counts["looking"] == 3
