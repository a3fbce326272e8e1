"""A bit that flips in a finished run is named by its file, with what to do; an undamaged study has no damage."""

import json
import shutil

import pandas as pd
import pytest

from studykit.errors import InputError
from studykit.models.names import Models
from studykit.results import RunWriter, damaged_files, load, open_study, read_record, verify
from studykit.results.cells import finish_cell, write_cell
from studykit.results.record import CellSpec

WEIGHTS = ("model/model.safetensors", "model/config.json", "adapter/a.bin")


@pytest.fixture
def whole(tmp_path, make_spec, evaluate_run):
    """Write a study of one run with weights and adapters, its evaluation, and one cell."""
    study, spec = open_study(tmp_path / "results", "whole"), make_spec("kd")
    with RunWriter(study, spec) as run:
        for name in (
            "metrics.jsonl",
            "model/model.safetensors",
            "model/config.json",
            "model/README.md",
            "adapter/a.bin",
        ):
            (run.folder / name).parent.mkdir(exist_ok=True)
            (run.folder / name).write_text('{"step": 1, "loss": 2.5}\n')
        run.finish({"train_s": 0.25}, [])
        for evaluation in spec.evaluation:
            evaluate_run(run.folder, evaluation)
    cell = study / "cells" / "0123456789ab"
    write_cell(cell, CellSpec(cell_id=cell.name, notebook="n", notebooks=".", parameters={}, timeout_s=1.0))
    finish_cell(cell, "done", wall_s=1.5)
    load(study)  # writes the index
    return study, run.folder


def test_an_undamaged_study_has_no_damage(whole, study):
    assert list(verify(whole[0])) == list(verify(study)) == []


FILES = ["spec.json", "metrics.jsonl", *WEIGHTS]
OF_AN_EVALUATION = ["evaluation.json", "items.jsonl", "record.json"]


def flip(file):
    """Flip a bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_of_a_runs_file_is_named(name, whole):
    study, folder = whole
    flip(folder / name)
    (damage,) = verify(study)
    assert damage.file == folder / name
    assert str(damage) == f"{folder / name}: is not what was written: remove {folder} and run its specification again"


@pytest.mark.parametrize("name", OF_AN_EVALUATION)
def test_one_flipped_bit_of_an_evaluations_file_is_named(name, whole):
    study, folder = whole
    (file,) = folder.glob(f"evaluations/*/{name}")
    flip(file)
    (study / "index.jsonl").unlink()
    damages = list(verify(study))
    assert {damage.file.name for damage in damages} <= {name, "record.json"}
    assert damages
    assert all(damage.fix == f"remove {file.parent} and run the specification again" for damage in damages)


def test_what_is_left_out_to_save_disk_is_no_damage(whole):
    study, folder = whole
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "adapter")
    (items,) = folder.glob("evaluations/*/items.jsonl")
    items.unlink()
    assert list(verify(study)) == []


@pytest.mark.parametrize("name", ["spec.json", "model/model.safetensors", "model/config.json"])
def test_a_file_that_is_missing_where_others_are_is_named(name, whole):
    study, folder = whole
    (folder / name).unlink()
    (damage,) = verify(study)
    assert (damage.file, damage.what) == (folder / name, "cannot be read (No such file or directory)")


def test_the_card_may_be_written_again(whole):
    study, folder = whole
    (folder / "model" / "README.md").write_text("a better one")
    assert list(verify(study)) == []


def test_a_changed_digit_of_a_record_is_noticed_wherever_it_is_read(whole):
    study, folder = whole
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace("0.25", "0.35"))
    (study / "index.jsonl").unlink()
    with pytest.raises(InputError, match="its content has changed since it was written"):
        read_record(folder)
    assert load(study)["status"].tolist() == ["failed"]
    (damage,) = verify(study)
    assert damage.file == folder / "record.json"
    what = "is damaged (its content has changed since it was written)"
    assert str(damage) == f"{folder}/record.json: {what}: remove {folder} and run its specification again"


def test_a_changed_digit_of_the_index_is_not_shown(whole):
    study, _ = whole
    frame, index = load(study), study / "index.jsonl"
    text = index.read_text()
    index.write_text(text.replace("0.25", "0.35"))
    pd.testing.assert_frame_equal(load(study), frame)
    assert index.read_text() == text


def test_a_record_that_was_changed_after_it_was_indexed_is_noticed_by_the_table(whole):
    study, folder = whole
    assert load(study)["status"].tolist() == ["done"]
    for record in (folder / "record.json", next(folder.glob("evaluations/*/record.json"))):
        text = record.read_text()
        record.write_text(text.replace('"finished": "2', '"finished": "3'))
        assert load(study)["status"].tolist() == ["failed"]
        record.write_text(text)
        assert load(study)["status"].tolist() == ["done"]


def test_a_changed_digit_of_the_index_or_a_cell_is_named(whole):
    study, folder = whole
    index = study / "index.jsonl"
    index.write_text(index.read_text().replace("0.25", "0.35"))
    record = study / "cells" / "0123456789ab" / "record.json"
    record.write_text(record.read_text().replace("1.5", "2.5"))
    (study / "signals").mkdir()
    (study / "signals" / f"{folder.name}.json").write_text("{")
    (study / "study.json").unlink()
    assert {damage.file.name for damage in verify(study)} == {
        "index.jsonl",
        "0123456789ab",
        f"{folder.name}.json",
        "study.json",
    }


def test_a_record_in_another_runs_folder_is_named(whole):
    study, folder = whole
    shutil.copytree(folder, study / "runs" / "0123456789ab")
    (damage,) = verify(study)
    assert damage.what == f"its record is that of run {folder.name}"


def test_records_without_hashes_are_checked_for_what_they_have(whole):
    study, folder = whole
    record = json.loads((folder / "record.json").read_text())
    del record["sha256"], record["files"]["model/config.json"]
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "model" / "config.json").write_text("{}")
    assert list(verify(study)) == []


def test_a_run_whose_weights_have_changed_is_no_model(whole):
    study, folder = whole
    assert Models(study.parent).find(folder.name).path == str(folder / "model")
    (folder / "model" / "model.safetensors").write_text("other weights")
    assert [damage.file.name for damage in damaged_files(folder, ("model/",))] == ["model.safetensors"]
    with pytest.raises(InputError, match=r"model.safetensors: is not what was written: remove .* run its spec"):
        Models(study.parent).find(folder.name)
