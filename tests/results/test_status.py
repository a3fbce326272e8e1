"""`status.json`: what a run is doing, written seldom, gone with the record, never part of it."""

import json
from contextlib import suppress
from types import SimpleNamespace

import pytest

from studykit import results
from studykit.results import RunWriter, status
from studykit.results.status import Activity, StatusFile, read_status, running

TRAINING = Activity("training", "steps", "kd")


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock of the file by one that stands still until it is set."""
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr(status, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_it_is_written_once_a_second_and_when_the_activity_changes(tmp_path, clock):
    shown = []
    watch = StatusFile(tmp_path, shown.append)
    for step in range(100):
        watch(TRAINING, step, 300)
    assert [(s.activity, s.done) for s in shown] == [("training", 0)]
    clock.s += 1.0
    watch(TRAINING, 100, 300)
    watch(Activity("scoring", "items"), 0, 20)
    assert [(s.activity, s.done) for s in shown] == [("training", 0), ("training", 100), ("scoring", 0)]
    assert read_status(tmp_path) == shown[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_pace_and_time_left_count_from_where_this_process_began(tmp_path, clock):
    watch = StatusFile(tmp_path)
    watch(TRAINING, 40, 300)  # resumed at step 40
    clock.s += 30
    watch(TRAINING, 100, 300)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.s_per_unit, found.left_s) == (0.5, 100.0)
    assert found.line() == "training (kd): 100 of 300 steps, 0.5 s/step, about 2 min left"
    assert found.share == pytest.approx(1 / 3)


def test_what_cannot_be_counted_has_its_name_alone(tmp_path):
    StatusFile(tmp_path)(Activity("saving the weights"), 0, 0)
    found = read_status(tmp_path)
    assert found is not None
    assert (found.line(), found.share, found.left_s) == ("saving the weights", 0.0, None)


def test_positions_are_a_percentage(tmp_path):
    StatusFile(tmp_path)(Activity("asking the teacher", "positions", "kd"), 340, 1000)
    found = read_status(tmp_path)
    assert found is not None
    assert found.line() == "asking the teacher (kd): 34% of 1,000 positions"


def test_a_status_that_cannot_be_written_stops_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    shown = []
    StatusFile(tmp_path / "file", shown.append)(TRAINING, 1, 2)
    assert len(shown) == 1
    assert read_status(tmp_path / "file") is None


@pytest.mark.parametrize("fails", [False, True])
def test_the_record_replaces_it_and_does_not_know_it(study, make_spec, fails):
    writer = RunWriter(study, make_spec("sft", 700))
    with suppress(MemoryError), writer as run:
        StatusFile(run.folder)(TRAINING, 1, 2)
        assert running(study).keys() == {run.folder.name}
        if fails:
            raise MemoryError("made up for the test")
        run.finish({}, [])
        StatusFile(run.folder)(Activity("scoring", "items"), 1, 2)
        assert running(study).keys() == {run.folder.name}
    record = results.read_record(writer.folder)
    assert record is not None
    assert "status.json" not in record.files
    assert not (writer.folder / "status.json").exists()
    assert running(study) == {}


def test_only_what_a_process_works_on_is_running(study, make_spec):
    with RunWriter(study, make_spec("sft", 700)) as run:
        StatusFile(run.folder)(TRAINING, 1, 2)
    assert read_status(run.folder) is not None  # how far a killed process was
    assert running(study) == {}


@pytest.mark.parametrize("content", ["", "[]", "{", json.dumps({"activity": 3}), '{"schema": 7}'])
def test_a_damaged_status_is_none(study, make_spec, content):
    with RunWriter(study, make_spec("sft", 700)) as run:
        (run.folder / "status.json").write_text(content)
        assert running(study) == {}
