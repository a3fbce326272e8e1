"""Folders that earlier versions wrote, kept as they were: each is read for as long as the kit exists."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from studykit import results
from studykit.results.record import RECORD_SCHEMA
from studykit.spec import RunSpec

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted(GOLDEN.glob("v*/sample/runs/*"))
every_run = pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)


@pytest.fixture
def v1(tmp_path):
    """Copy the study of schema 1, since reading leaves an index."""
    return Path(shutil.copytree(GOLDEN / "v1" / "sample", tmp_path / "sample"))


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


def test_old_runs_stand_in_the_table_with_what_they_measured(v1):
    frame = results.load(v1).set_index("run_id")
    assert set(frame.index) == {folder.name for folder in RUNS}
    assert set(frame["status"]) == {"done"}
    assert results.damaged_records(v1) == {}
    for folder in (v1 / "runs").iterdir():
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        row = frame.loc[folder.name].to_dict()
        assert {name: row[name] for name in record["metrics"]} == record["metrics"]
        assert {name: row[name] for name in record["cost"]} == record["cost"]
        assert {name: row[f"teacher_{name}"] for name in record["teacher_metrics"]} == record["teacher_metrics"]
    assert frame["bytes_per_position"].notna().sum() == 1


def test_old_and_new_runs_stand_side_by_side(v1, make_run, make_spec):
    new = make_run(v1, make_spec("kd", 500))
    frame = results.load(v1)
    assert set(frame["run_id"]) == {new.name, *(folder.name for folder in RUNS)}


def test_an_old_cell_names_its_runs(v1):
    [cell] = results.cells(v1)
    assert cell.status == "done"
    assert set(cell.runs) & {folder.name for folder in RUNS}
    assert results.read_notebook(cell.folder)
