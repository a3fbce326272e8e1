"""One row per run: columns, types and statuses, and an index that is only ever derived."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest

from studykit import results
from studykit.errors import InputError
from studykit.results import IDENTITY_COLUMNS, EvaluationWriter, RunWriter, load, open_study
from studykit.spec import Data, RunSpec

HOLD = """
import sys, time
from pathlib import Path
from studykit.results import RunWriter
from studykit.spec import Data, RunSpec
with RunWriter(Path(sys.argv[1]), RunSpec.parse(__import__("json").loads(sys.argv[2]))) as run:
    (run.folder / "metrics.jsonl").write_text('{"step": 1}\\n{"step"')
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_row_per_run_with_its_columns_and_types(study):
    frame = load(study)
    assert list(frame.columns[: len(IDENTITY_COLUMNS)]) == list(IDENTITY_COLUMNS)
    assert frame.shape[0] == 3
    kd, sft = frame.to_dict("records")[:2]
    assert (sft["method"], sft["seed"], sft["exact_match"], sft["nll"]) == ("sft", 0, 0.25, 1.5)
    assert (kd["method"], kd["teacher"], kd["exact_match"]) == ("kd", "lexicon/teacher-a", 0.375)
    assert pd.isna(sft["teacher"])
    assert (sft["budget_examples"], sft["budget_tokens"], sft["steps"]) == (100, 700, 10)
    assert (sft["study"], sft["ablation"], sft["student"], sft["status"]) == (
        "sample",
        "data_size",
        "lexicon/base-small",
        "done",
    )
    assert (sft["train_s"], sft["student_tokens"]) == (2.5, 800)
    for column in ("budget_examples", "budget_tokens", "seed", "steps"):
        assert frame[column].dtype == "Int64"
    assert results.metric_columns(frame) == ["exact_match", "nll"]


def test_a_missing_metric_is_missing_and_never_0(study, make_spec):
    spec = make_spec("sft", 300)
    with RunWriter(study, spec) as run:
        run.finish({}, [])
        with EvaluationWriter(run.folder, spec.evaluation[0]) as measured:
            measured.finish({"nll": 1.0})
    frame = load(study)
    row = frame[frame["run_id"] == run.folder.name].iloc[0].to_dict()
    assert pd.isna(row["exact_match"])
    assert pd.isna(row["train_s"])
    assert row["budget_examples"] == 300  # of the specification, where no manifest says what was drawn
    assert pd.isna(row["budget_tokens"])


@pytest.mark.parametrize(
    ("second", "hashes", "examples"),
    [
        ({"examples": 100}, "aa", 100),
        ({"examples": 300}, "ab", 300),  # the first is a part of it
        ({"examples": 300, "seed": 1}, "ab", 400),
        ({"examples": 100, "seed": 1}, "aa", 100),
    ],
)
def test_stages_on_nested_prompts_have_one_budget(second, hashes, examples, study, make_spec):
    spec = make_spec("sft", 100)
    data = Data.model_validate({"source": "lexicon", "budget": second})
    spec = spec.model_copy(update={"stages": (spec.stages[0], spec.stages[0].model_copy(update={"data": data}))})
    counts = [stage.data.budget.examples for stage in spec.stages]
    manifests = [
        {"examples": n, "response_tokens": 7 * n, "examples_sha256": sha} for n, sha in zip(counts, hashes, strict=True)
    ]
    with RunWriter(study, spec) as run:
        run.finish({}, manifests)
    row = load(study).set_index("run_id").loc[run.folder.name].to_dict()
    assert (row["budget_examples"], row["budget_tokens"]) == (examples, 7 * examples)


def test_all_studies_under_a_folder_are_read_together(study, make_run, make_spec):
    make_run(open_study(study.parent, "another"), make_spec())
    (study.parent / "LOG.md").write_text("notes")
    assert sorted(load(study.parent)["study"]) == ["another", "sample", "sample", "sample"]
    assert [folder.name for folder in results.studies(study.parent)] == ["another", "sample"]


def test_a_folder_that_is_not_there_is_empty_and_has_all_columns(tmp_path):
    frame = load(tmp_path / "nothing")
    assert frame.empty
    assert list(frame.columns) == list(IDENTITY_COLUMNS)
    assert load(tmp_path).empty
    assert not (tmp_path / "nothing").exists()


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError, match="holds no studykit study"):
        load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder of results"):
        load(tmp_path / "file")


def statuses(study):
    return load(study).set_index("run_id")["status"].to_dict()


def test_running_is_a_lease_held_by_a_living_process(study, make_spec):
    spec = make_spec("sft", 500)
    command = [sys.executable, "-c", HOLD, str(study), spec.canonical()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert statuses(study)[spec.run_id] == "running"
        before = results.fingerprint(study)
        row = load(study).set_index("run_id").loc[spec.run_id]
        assert (row["method"], row["budget_examples"], row["steps"]) == ("sft", 500, 10)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert statuses(study)[spec.run_id] == "stale"
    assert results.fingerprint(study) != before
    metrics, damaged = results.read_metrics(results.run_folder(study, spec.run_id))
    assert (metrics.to_dict("records"), damaged) == ([{"step": 1}], 0)


def test_a_failed_run_says_so_and_is_tried_again(study, make_spec, make_run):
    spec = make_spec("sft", 500)
    with pytest.raises(MemoryError), RunWriter(study, spec) as run:
        raise MemoryError("no room for it")
    assert statuses(study)[spec.run_id] == "failed"
    record = results.read_record(run.folder)
    assert record is not None
    assert record.error == "MemoryError: no room for it"
    make_run(study, spec)
    assert statuses(study)[spec.run_id] == "done"


def test_an_interrupted_run_leaves_no_record(study, make_spec):
    spec = make_spec("sft", 500)
    with pytest.raises(KeyboardInterrupt), RunWriter(study, spec):
        raise KeyboardInterrupt
    assert statuses(study)[spec.run_id] == "stale"


def test_the_index_can_be_deleted_rebuilt_and_stays_equal(study):
    frame = load(study)
    text = (study / "index.jsonl").read_text()
    assert len(text.splitlines()) == 3
    pd.testing.assert_frame_equal(load(study), frame)  # now read from the index
    (study / "index.jsonl").unlink()
    pd.testing.assert_frame_equal(load(study), frame)
    assert results.rebuild_index(study) == 3
    assert (study / "index.jsonl").read_text() == text


def test_the_index_does_not_vouch_for_deleted_runs(study):
    gone, without_record, kept = load(study)["run_id"]
    shutil.rmtree(study / "runs" / gone)
    (study / "runs" / without_record / "record.json").unlink()
    assert statuses(study) == {without_record: "stale", kept: "done"}
    assert [json.loads(line)["run_id"] for line in (study / "index.jsonl").read_text().splitlines()] == [kept]


@pytest.mark.parametrize("line", ["{torn", "[]", '{"schema": 1}', '{"schema": 99, "run_id": "0123456789ab"}', ""])
def test_a_damaged_index_is_read_like_a_missing_one(study, line):
    frame = load(study)
    index = study / "index.jsonl"
    index.write_text(line + "\n" + index.read_text()[:-10])
    pd.testing.assert_frame_equal(load(study), frame)


def as_schema_1(folder, run_id):
    """Write a finished run again as schema 1 has it, under another id; return its folder."""
    old = folder.parent / run_id
    shutil.copytree(folder, old)
    [evaluation] = [json.loads(file.read_text()) for file in old.glob("evaluations/*/record.json")]
    shutil.rmtree(old / "evaluations")
    record = json.loads((old / "record.json").read_text())
    record["spec"]["evaluation"] = evaluation["evaluation"]
    for part in (record["spec"]["student"], *(stage["data"] for stage in record["spec"]["stages"])):
        part["content"] = part.pop("sha256")
    record |= {"schema": 1, "run_id": run_id, "metrics": evaluation["metrics"]}
    del record["arm"], record["sha256"]
    (old / "record.json").write_text(json.dumps(record))
    (old / "spec.json").write_text(json.dumps(record["spec"]))
    return old


def test_a_run_of_schema_1_has_a_row_until_it_is_run_again(study, make_run):
    plain = json.loads(next((study / "runs").iterdir()).joinpath("spec.json").read_text())
    plain["student"]["sha256"] = plain["stages"][0]["data"]["sha256"] = "f0"
    plain["evaluation"] = {"data": {"source": "lexicon", "split": "test"}}
    new = make_run(study, RunSpec.parse(plain))
    old = as_schema_1(new, "0123456789ab")
    for _ in range(2):  # from the records, then from the index
        ids = set(load(study)["run_id"])
        assert new.name in ids
        assert old.name not in ids
    (new / "record.json").unlink()
    assert statuses(study)[old.name] == "done"
    shutil.rmtree(new)
    assert old.name in set(load(study)["run_id"])
    assert "run_id_today" not in load(study)


def test_a_read_only_study_is_read(study, monkeypatch):
    def refuse(**where):
        raise OSError(errno.EROFS, "Read-only file system", str(where["dir"]))

    monkeypatch.setattr("studykit.files.tempfile.mkstemp", refuse)  # root may write where permissions forbid it
    assert len(load(study)) == 3
    assert not (study / "index.jsonl").exists()


def test_a_copied_study_is_read_under_its_new_name(study):
    load(study)
    shutil.copytree(study, study.parent / "copy")
    assert set(load(study.parent / "copy")["study"]) == {"copy"}


DAMAGED = {
    "half": '{"schema": 1, "run_id": ',
    "list": "[1, 2]",
    "foreign": '{"hello": "world"}',
    "bare": '{"schema": 1, "status": "done"}',
    "newer": '{"schema": 99, "status": "done"}',
    "bytes": "\udcff\udcfe",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_record_is_counted_and_spoils_no_other(study, make_spec, make_run, kind):
    folder = make_run(study, make_spec("sft", 900))
    (folder / "record.json").write_text(DAMAGED[kind], errors="surrogateescape")
    assert statuses(study)[folder.name] == "failed"
    assert len(load(study)) == 4
    [[run_id, reason]] = results.damaged_records(study).items()
    assert run_id == folder.name
    assert str(folder / "record.json") in reason
    with pytest.raises(InputError, match="update studykit" if kind == "newer" else "record.json"):
        results.read_record(folder)


def test_a_damaged_specification_spoils_no_other(study, make_spec):
    with pytest.raises(KeyboardInterrupt), RunWriter(study, make_spec("sft", 900)) as run:
        raise KeyboardInterrupt
    for text in ("{", "{}", "[]", '{"stages": 3, "student": {}}'):
        (run.folder / "spec.json").write_text(text)
        assert statuses(study)[run.folder.name] == "stale"


def test_things_that_are_no_run_are_passed_over(study):
    (study / "runs" / "notes.txt").write_text("mine")
    (study / "runs" / "0123456789ab").write_text("a file with the name of a run")
    (study / "runs" / "not-a-run-id").mkdir()
    (study / "runs" / "ba9876543210").symlink_to(study.parent, target_is_directory=True)
    assert len(load(study)) == 3
