"""Trackers follow runs: one run of theirs for each of ours, with its name and its numbers, whatever happens to it."""

import json
import sys

import pytest

from studykit import study
from studykit.cli import main
from studykit.errors import InputError
from studykit.results import read_metrics
from studykit.results.report_to import chosen
from studykit.spec import RunSpec
from studykit.study import trackers
from studykit.training.metrics import MetricsFile
from studykit.training.stopping import Stopped


@pytest.fixture
def plain(plain_spec, stage, data_file):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 4, "max_new_tokens": 4}
    return plain_spec(stage("sft", steps=6), stage("sft", steps=4, learning_rate=0.02), evaluation=evaluation)


class Recording:
    """A tracker that keeps what it gets."""

    def __init__(self, folder, run_id, config, known):
        self.file, self.config, self.known = folder / f"{run_id}.recorded", config, known

    def start(self):
        self.write(start=self.config)

    def write(self, **line):
        with self.file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def log(self, values, step):
        print("a greeting")
        self.write(values=values, step=step)

    def finish(self):
        self.write(finish=True)


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setitem(trackers._MAKE, "trackio", Recording)
    monkeypatch.setattr("studykit.results.report_to.find_spec", lambda name: True)


def recorded(root, run_id):
    lines = (root / "scratch" / f"{run_id}.recorded").read_text().splitlines()
    return [json.loads(line) for line in lines]


def logged(root, run_id):
    return [(line["step"], line["values"]) for line in recorded(root, run_id) if "step" in line]


def assert_whole(root, row):
    """Check that the tracker has each line of the curve once, and then the scores."""
    curve, _ = read_metrics(root / "scratch" / "runs" / row["run_id"])
    assert len(curve) == 10
    *steps, last = logged(root, row["run_id"])
    assert [step for step, _ in steps] == list(range(1, 11))
    assert [values["loss"] for _, values in steps] == curve["loss"].tolist()
    assert last == (10, {name: row[name] for name in last[1]})
    assert "exact_match" in last[1]


def test_one_run_of_theirs_has_all_numbers_of_one_of_ours(plain, recording, tmp_path, capsys):
    row = study.run(plain, root=tmp_path, report_to="trackio", keep="none")
    assert_whole(tmp_path, row)
    first, *_, end = recorded(tmp_path, row["run_id"])
    assert (first["start"]["method"], first["start"]["stage_2.learning_rate"]) == ("sft > sft", 0.02)
    assert end == {"finish": True}
    assert capsys.readouterr().out == ""
    study.run(plain, root=tmp_path, report_to="trackio")
    assert len(recorded(tmp_path, row["run_id"])) == 13  # the start, ten steps, the scores, the end: nothing again


def test_it_changes_no_run_and_a_finished_one_is_sent_whole(plain, recording, tmp_path, monkeypatch):
    row = study.run(plain, root=tmp_path, keep="none")
    assert not (tmp_path / "scratch" / "trackers").exists()
    monkeypatch.setenv("STUDYKIT_REPORT_TO", "trackio")
    assert study.run(plain, root=tmp_path)["run_id"] == row["run_id"]
    assert_whole(tmp_path, row)
    assert "report_to" not in json.dumps(RunSpec.parse(plain).plain())


@pytest.fixture
def stop_once(monkeypatch):
    """Stop the next training in its second stage, without a checkpoint in it."""

    def stop(**settings):
        append, logs = MetricsFile.append, []

        def append_eight(self, step, values):
            append(self, step, values)
            logs.append(step)
            if len(logs) == 8:
                raise Stopped("stopped")

        with monkeypatch.context() as patched:
            patched.setattr(MetricsFile, "append", append_eight)
            with pytest.raises(Stopped):
                study.run(**settings)

    return stop


def test_a_stopped_run_goes_on_in_the_same_run_of_theirs(plain, recording, tmp_path, stop_once):
    settings = {"spec": plain, "root": tmp_path, "report_to": "trackio", "keep": "none"}
    stop_once(**settings)
    assert len(logged(tmp_path, RunSpec.parse(json.loads(next(tmp_path.rglob("spec.json")).read_text())).run_id)) == 8
    row = study.run(**settings)
    assert_whole(tmp_path, row)
    assert sum("start" in line for line in recorded(tmp_path, row["run_id"])) == 2


def test_a_tracker_that_fails_ends_no_run(plain, recording, tmp_path, monkeypatch, caplog):
    def fail(self, values, step):
        raise OSError("the disk\nis full")

    monkeypatch.setattr(Recording, "log", fail)
    row = study.run(plain, root=tmp_path, report_to="trackio", keep="none")
    assert row["status"] == "done"
    assert caplog.text.count("trackio has failed (the disk is full): run") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "unknown tracker 'tensorbord'; did you mean 'tensorboard'"),
        ("mlflow", "mlflow is not installed: pip"),
    ],
)
def test_what_cannot_follow_is_refused_before_anything_starts(name, said, plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("studykit.results.report_to.find_spec", lambda name: None)
    with pytest.raises(InputError, match=said):
        study.run(plain, root=tmp_path / "results", report_to=name)
    monkeypatch.setenv("STUDYKIT_REPORT_TO", "")
    monkeypatch.setattr(sys, "argv", ["studykit", "batch", "smoke", "--report-to", name, "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said.partition(";")[0] in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_names_are_taken_once_and_none_by_default(monkeypatch):
    monkeypatch.delenv("STUDYKIT_REPORT_TO", raising=False)
    assert chosen(None) == chosen("none") == ()
    assert chosen(["tensorboard", "tensorboard"]) == chosen(" tensorboard,none") == ("tensorboard",)


def test_tensorboard_reads_the_curve_of_each_run(plain, tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    rows = [study.run(plain | {"seed": seed}, root=tmp_path, report_to="tensorboard", keep="none") for seed in (0, 1)]
    read = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "scratch" / "tensorboard")).Reload()
    assert set(read.Runs()) == {row["run_id"] for row in rows}
    for row in rows:
        curve, _ = read_metrics(tmp_path / "scratch" / "runs" / row["run_id"])
        events = read.Scalars(row["run_id"], "loss")
        assert [event.step for event in events] == list(range(1, 11))
        assert [event.value for event in events] == pytest.approx(curve["loss"].tolist())
        [score] = read.Scalars(row["run_id"], "exact_match")
        assert (score.step, score.value) == (10, pytest.approx(row["exact_match"]))
        assert "config/text_summary" in read.Runs()[row["run_id"]]["tensors"]


def test_trackio_keeps_the_curve_of_a_run_on_this_machine(plain, tmp_path, stop_once):
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    settings = {"spec": plain, "root": tmp_path, "study": "followed", "report_to": "trackio", "keep": "none"}
    stop_once(**settings)
    row = study.run(**settings)
    [run] = trackio.Api().runs("followed")
    assert (run.name, run.config["method"]) == (row["run_id"], "sft > sft")
    curve, _ = read_metrics(tmp_path / "followed" / "runs" / row["run_id"])
    logs = SQLiteStorage.get_logs("followed", row["run_id"])
    points = [(line["step"], line["loss"]) for line in logs if "loss" in line]
    assert [step for step, _ in points] == list(range(1, 11))
    assert [loss for _, loss in points] == pytest.approx(curve["loss"].tolist())
    [score] = [line["exact_match"] for line in logs if "exact_match" in line]
    assert score == pytest.approx(row["exact_match"])
