"""Folders that earlier versions wrote, kept as they were: each is read for as long as the kit exists."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from studykit import results
from studykit.results.record import RECORD_SCHEMA
from studykit.spec import RunSpec

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted(GOLDEN.glob("v*/sample/runs/*"))
every_run = pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)


@pytest.fixture(params=sorted(folder.name for folder in GOLDEN.iterdir()))
def old(tmp_path, request):
    """Copy the study of an older schema, since reading leaves an index."""
    return Path(shutil.copytree(GOLDEN / request.param / "sample", tmp_path / "sample"))


def files_of(study):
    """Return the content of every file but the index."""
    return {file: file.read_bytes() for file in study.rglob("*.*") if file.is_file() and file.name != "index.jsonl"}


def test_there_are_folders_of_every_older_schema():
    assert [folder.name for folder in sorted(GOLDEN.iterdir())] == [f"v{number}" for number in range(1, RECORD_SCHEMA)]
    assert len(RUNS) >= 3


@every_run
def test_an_old_run_keeps_the_id_that_its_schema_gave_it(folder):
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    text = json.dumps(record["spec"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(f"{record['schema']}:{text}".encode()).hexdigest()[:12] == folder.name
    today = results.read_record(folder)
    assert today is not None
    assert today.run_id == folder.name


@every_run
def test_its_specification_is_read_under_todays_names(folder):
    plain = results.read_spec(folder)
    assert plain is not None
    spec = RunSpec.parse(plain)
    assert spec.student.sha256
    assert all(stage.data.sha256 for stage in spec.stages)
    record = results.read_record(folder)
    assert record is not None
    assert json.loads(record.spec.canonical()) == plain
    assert record.spec.evaluation == ()


def test_old_runs_stand_in_the_table_with_what_they_measured(old):
    before = files_of(old)
    frame, indexed = (results.load(old).set_index("run_id") for _ in range(2))
    pd.testing.assert_frame_equal(frame, indexed)
    assert set(frame.index) == {folder.name for folder in (old / "runs").iterdir()}
    assert set(frame["status"]) == {"done"}
    assert results.damaged_records(old) == {}
    for folder in (old / "runs").iterdir():
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        row = frame.loc[folder.name].to_dict()
        assert {name: row[name] for name in record["metrics"]} == record["metrics"]
        assert {name: row[name] for name in record["cost"]} == record["cost"]
        assert {name: row[f"teacher_{name}"] for name in record["teacher_metrics"]} == record["teacher_metrics"]
        assert pd.isna(row["eval_id"]) == ("evaluation" not in record["spec"])
    assert frame["bytes_per_position"].notna().sum() == 1
    assert files_of(old) == before


def test_the_evaluation_of_an_old_run_is_read_from_the_files_of_the_run(old):
    for folder in (old / "runs").iterdir():
        plain = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        for stored in results.read_evaluations(folder):
            assert stored.folder == folder
            assert stored.record is not None
            assert stored.record.metrics == plain["metrics"]
            assert stored.eval_id == stored.record.evaluation.eval_id
            assert results.read_items(folder) == results.read_items(folder, stored.eval_id)
        assert len(results.read_evaluations(folder)) == ("evaluation" in plain["spec"])
        assert bool(results.read_items(folder)[0]) == (folder / "items.jsonl").exists()


def test_an_old_run_can_have_a_second_evaluation_beside_its_first(old, evaluate_run):
    run_id = results.load(old)["run_id"][0]
    folder, before = results.run_folder(old, run_id), files_of(old)
    [first] = results.read_evaluations(folder)
    assert first.evaluation is not None
    evaluate_run(folder, first.evaluation.model_copy(update={"items": 3}), score=0.75)
    for _ in range(2):
        rows = results.load(old).set_index("run_id").loc[run_id]
        assert rows["eval_id"].tolist()[0] == first.eval_id
        assert rows["exact_match"].tolist()[1] == 0.75
    assert {file: content for file, content in files_of(old).items() if file in before} == before


def test_old_and_new_runs_stand_side_by_side(old, make_run, make_spec):
    known = set(results.load(old)["run_id"])
    new = make_run(old, make_spec("kd", 500))
    assert set(results.load(old)["run_id"]) == {new.name, *known}


def test_an_old_cell_names_its_runs(old):
    [cell] = results.cells(old)
    assert cell.status == "done"
    assert set(cell.runs) & {folder.name for folder in (old / "runs").iterdir()}
    assert results.read_notebook(cell.folder)
