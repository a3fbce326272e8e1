"""Files put in place whole, strict JSON, one writer at a time, and records that name no machine."""

import getpass
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from studykit import results
from studykit.errors import InputError
from studykit.files import replacing
from studykit.files.leases import take
from studykit.results import EvaluationWriter, RunWriter, open_study, write_json
from studykit.results.record import MIGRATIONS, RECORD_SCHEMA, migrate
from studykit.results.status import Activity, StatusFile

WRITE_FOREVER = """
import itertools, sys
from pathlib import Path
from studykit.files import write_json
for number in itertools.count():
    write_json(Path(sys.argv[1]), {"number": number, "padding": [number] * 20_000})
"""


def test_who_waits_for_a_run_says_who_holds_it_and_what_it_is_doing(study, make_spec, caplog):
    folder = study / "runs" / make_spec("kd", 7).run_id
    lease, lines = take(folder), []
    assert lease is not None
    StatusFile(folder)(Activity("training", "steps", "kd"), 3, 9)

    def tell(line):
        lines.append(line)
        if len(lines) == 2:
            lease.release()

    with RunWriter(study, make_spec("kd", 7), tell=tell):
        holder = f"process {os.getpid()} on {platform.node()}, since "
        assert lines[0].startswith(f"waiting for run {folder.name}, held by {holder}")
        assert lines[0].endswith(" UTC: training (kd): 3 of 9 steps")
        assert len(lines) == 2
        assert caplog.messages == lines[:1]


def test_a_study_that_another_process_is_just_making_is_no_foreign_folder(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".study.json.k3j.json").write_text("")  # half written, or left by one that was killed
    assert open_study(tmp_path, "new") == tmp_path / "new"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not a studykit study"):
        open_study(tmp_path, "foreign")


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    file = tmp_path / "record.json"
    numbers = []
    for kill in range(4):
        with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(file)]) as writer:
            deadline = time.monotonic() + 60
            while len(numbers) <= kill and time.monotonic() < deadline:
                if file.exists() and (content := json.loads(file.read_text()))["number"] > 1:
                    numbers.append(content["number"])
            time.sleep(random.Random(kill).uniform(0, 0.1))
            for _ in range(20):
                assert len(set(json.loads(file.read_text())["padding"])) == 1
            os.kill(writer.pid, signal.SIGKILL)
        content = json.loads(file.read_text())
        assert content["padding"] == [content["number"]] * 20_000
        file.unlink()
    assert len(numbers) == 4


def test_an_error_while_writing_leaves_the_old_file_and_no_litter(tmp_path):
    write_json(tmp_path / "record.json", {"old": True})
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "record.json") as temporary:
        temporary.write_text((tmp_path / "nothing").read_text())
    assert json.loads((tmp_path / "record.json").read_text()) == {"old": True}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("nan")]}])
def test_json_is_strict(tmp_path, make_spec, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "record.json", {"value": value})
    assert list(tmp_path.iterdir()) == []
    with RunWriter(open_study(tmp_path, "sample"), make_spec()) as run:
        with pytest.raises(ValueError, match=r"finite number|valid number|valid integer"):
            run.finish({"train_s": value}, [])
        run.finish({}, [])
        with EvaluationWriter(run.folder, run.spec.evaluation[0]) as measured:
            with pytest.raises(ValueError, match="not JSON compliant"):
                measured.write_items([{"id": 1, "score": value}])
            with pytest.raises(ValueError, match=r"finite number|valid number|valid integer"):
                measured.finish({"exact_match": value})
    assert {file.name for file in measured.folder.iterdir()} == {"evaluation.json"}


def test_a_run_that_ends_in_nan_is_recorded_as_failed(tmp_path, make_spec):
    study = open_study(tmp_path, "sample")
    with pytest.raises(ValueError), RunWriter(study, make_spec()) as run:
        run.finish({"train_s": float("nan")}, [])
    record = results.read_record(run.folder)
    assert record is not None
    assert record.status == "failed"


def test_the_record_is_written_last_and_vouches_for_the_other_files(study):
    for folder in (study / "runs").iterdir():
        record = results.read_record(folder)
        assert record is not None
        [evaluation] = results.read_evaluations(folder)
        assert evaluation.record is not None
        assert set(record.files) == {"metrics.jsonl", "spec.json"}
        assert set(evaluation.record.files) == {"evaluation.json", "items.jsonl"}
        for where, files in ((folder, record.files), (evaluation.folder, evaluation.record.files)):
            for name, digest in files.items():
                assert hashlib.sha256((where / name).read_bytes()).hexdigest() == digest
                assert (where / name).stat().st_mtime_ns <= (where / "record.json").stat().st_mtime_ns
        assert json.loads((folder / "spec.json").read_text()) == json.loads(record.spec.canonical())
        assert (record.schema_version, record.run_id) == (RECORD_SCHEMA, folder.name)


def test_a_record_names_versions_and_revision_but_no_folder_or_person(study):
    checkout = Path(__file__).parents[2]
    for folder in (study / "runs").iterdir():
        text = (folder / "record.json").read_text()
        environment = json.loads(text)["environment"]
        assert environment["python"] == platform.python_version()
        assert environment["packages"]["torch"].startswith("2.")
        revision = environment["git_revision"]
        assert revision is None or len(revision) == 40
        for name in (study, Path.home() / "x", checkout, sys.prefix, platform.node(), f'"{getpass.getuser()}"'):
            assert str(name) not in text
        assert '"/' not in text


def test_a_second_writer_waits_and_finds_the_run_done(study, make_spec):
    spec, seen = make_spec("sft", 700), []

    def second():
        with RunWriter(study, spec) as run:
            seen.append(run.is_done)

    waiting = threading.Thread(target=second)
    with RunWriter(study, spec) as first:
        waiting.start()
        time.sleep(0.3)
        assert seen == []
        first.finish({}, [])
    waiting.join(30)
    assert seen == [True]


def test_wrong_input_found_late_leaves_no_run(study, make_spec):
    spec = make_spec("sft", 700)
    with pytest.raises(InputError), RunWriter(study, spec):
        raise InputError("the example is too long")
    assert not (study / "runs" / spec.run_id).exists()


def test_a_finished_run_is_left_as_it_is(study, make_spec):
    spec = make_spec("sft", 100, 0)
    before = {file: file.read_bytes() for file in (study / "runs" / spec.run_id).rglob("*.*")}
    with RunWriter(study, spec) as run, EvaluationWriter(run.folder, spec.evaluation[0]) as measured:
        assert run.is_done
        assert measured.is_done
    assert {file: file.read_bytes() for file in run.folder.rglob("*.*")} == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", ".hidden", "/etc"])
def test_a_study_is_named_like_a_plain_folder(tmp_path, name):
    with pytest.raises(InputError, match="must be a plain folder name"):
        open_study(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_folder_never_becomes_a_study(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "notes").write_text("mine")
    for name in ("thesis", "notes"):
        with pytest.raises(InputError, match="is not a studykit study"):
            open_study(tmp_path, name)
    with pytest.raises(InputError, match="is a file"):
        open_study(tmp_path / "notes", "sample")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["chapter.txt", "notes", "thesis"]


def test_an_empty_folder_may_become_a_study_and_stays_one(tmp_path):
    (tmp_path / "sample").mkdir()
    for _ in range(2):
        assert open_study(tmp_path, "sample") == tmp_path / "sample"
    assert json.loads((tmp_path / "sample" / "study.json").read_text()) == {"schema": RECORD_SCHEMA, "study": "sample"}


def test_older_records_are_migrated_step_by_step_and_newer_ones_refused(monkeypatch):
    monkeypatch.setattr("studykit.results.record.RECORD_SCHEMA", 4)
    monkeypatch.setitem(MIGRATIONS, 1, lambda record: record | {"one": True})
    monkeypatch.setitem(MIGRATIONS, 2, lambda record: record | {"two": record["one"]})
    monkeypatch.setitem(MIGRATIONS, 3, lambda record: record | {"three": record["two"]})
    assert migrate({"schema": 1}, "here") == {"schema": 1, "one": True, "two": True, "three": True}
    assert migrate({"schema": 4}, "here") == {"schema": 4}
    with pytest.raises(InputError, match=r"here has schema 5, this studykit reads up to 4: update studykit"):
        migrate({"schema": 5}, "here")
    for record in ({}, {"schema": "1"}, {"schema": 0}):
        with pytest.raises(InputError, match="was not written by studykit"):
            migrate(record, "here")


def test_every_older_schema_has_a_migration():
    assert sorted(MIGRATIONS) == list(range(1, RECORD_SCHEMA))
