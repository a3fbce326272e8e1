"""What a killed process leaves in a run or a study: removed, written again, or shown, and never in the way."""

import json

import pytest

from studykit import results
from studykit.results import RunWriter, load, open_study


def test_the_next_writer_of_a_run_removes_what_a_killed_one_left(study, make_spec):
    spec = make_spec("kd", 300)
    folder = study / "runs" / spec.run_id
    folder.mkdir()
    (folder / ".items.jsonl.0a1b2c3d.jsonl").write_text("half an it")
    with RunWriter(study, spec) as run:
        assert not [file for file in run.folder.iterdir() if file.name.startswith(".")]


def test_checkpoints_that_a_process_killed_after_its_record_left_are_removed(study, make_spec):
    spec = make_spec("kd", 100)
    checkpoints = study / "runs" / spec.run_id / "checkpoints"
    (checkpoints / "stage-0" / "finished").mkdir(parents=True)
    with RunWriter(study, spec) as run:
        assert run.is_done
    assert not checkpoints.exists()


def test_checkpoints_of_a_run_without_a_record_stay(study, make_spec):
    spec = make_spec("kd", 300)
    checkpoints = study / "runs" / spec.run_id / "checkpoints"
    checkpoints.mkdir(parents=True)
    with RunWriter(study, spec):
        assert checkpoints.exists()


@pytest.mark.parametrize("start", ["the results folder", "the study"])
def test_a_study_without_its_file_is_shown_and_the_file_written_again(start, study):
    before = load(study)
    (study / "study.json").unlink()
    root = study.parent if start == "the results folder" else study
    assert results.studies(root) == [study]
    assert load(root)["run_id"].tolist() == before["run_id"].tolist()
    assert open_study(study.parent, study.name) == study
    assert json.loads((study / "study.json").read_text())["study"] == study.name
