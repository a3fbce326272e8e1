"""A packed study is the same table with the same answers and no damage, in less."""

import json

import pandas as pd
import pytest

from studykit import results
from studykit.errors import InputError
from studykit.results.arms import Role, add_role
from studykit.results.cells import add_run, finish_cell, read_cell_spec, write_cell
from studykit.results.record import CellSpec
from studykit.results.verify import verify
from tools.pack_study import pack_study

_NOTEBOOK = {"cells": [{"cell_type": "markdown", "source": ["KD − SFT\n", "two lines"]}], "nbformat": 4}


@pytest.fixture
def batch(study):
    """Return a study of one cell with two of its runs, one of them a trial, and heavy parts beside their records."""
    runs = results.load(study)["run_id"].tolist()
    cell = study / "cells" / ("0" * 12)
    write_cell(cell, CellSpec(cell_id=cell.name, notebook="n", notebooks="..", parameters={}, timeout_s=1.0))
    for run in runs[:2]:
        add_run(cell, run)
        (study / "runs" / run / "model").mkdir()
        (study / "runs" / run / "model" / "weights").write_bytes(bytes(9999))
    add_role(study, runs[1], Role("kd", tuning="0a1b", trial=True))
    (cell / "notebook.ipynb").write_text(json.dumps(_NOTEBOOK, indent=1))
    finish_cell(cell, "done", wall_s=1.0)
    return study, *runs


def test_what_cells_name_is_there_without_its_heavy_parts(batch, tmp_path):
    study, run, trial, other = batch
    size = pack_study(study, tmp_path / "packed")
    packed = tmp_path / "packed" / study.name
    assert size == sum(file.stat().st_size for file in packed.rglob("*") if file.is_file()) < 9999
    assert not (packed / "runs").exists()
    before = results.load(study, trials=True)
    expected = before[before["run_id"] != other].reset_index(drop=True)
    pd.testing.assert_frame_equal(results.load(packed, trials=True), expected, check_dtype=False)
    assert sorted(folder.name for folder in (packed / "runs").glob("[!.]*")) == sorted([run, trial])
    assert results.read_items(packed / "runs" / run) == results.read_items(study / "runs" / run)
    assert results.read_items(packed / "runs" / run)[0]
    assert results.read_items(packed / "runs" / trial) == ([], 0)
    assert len(results.read_metrics(packed / "runs" / run)[0]) == 2
    assert list(verify(packed)) == []
    notebook = (packed / "cells" / ("0" * 12) / "notebook.ipynb").read_text("utf-8")
    assert json.loads(notebook) == _NOTEBOOK
    assert notebook.count("\n") == 1


def test_of_a_cell_that_is_not_done_the_finished_trials_may_be_kept(batch, tmp_path):
    study, run, trial, other = batch
    left = study / "cells" / ("1" * 12)
    spec = read_cell_spec(study / "cells" / ("0" * 12))
    write_cell(left, spec.model_copy(update={"cell_id": left.name}))
    add_run(left, other)
    with pytest.raises(InputError, match=f"not done: {left.name}"):
        pack_study(study, tmp_path / "whole")
    pack_study(study, tmp_path / "reported", partial=True)
    assert set(results.load(tmp_path / "reported" / study.name, trials=True)["run_id"]) == {run, trial}
    add_role(study, other, Role("sft", tuning="0a1b", trial=True))
    pack_study(study, tmp_path / "trials", partial=True)
    packed = tmp_path / "trials" / study.name
    assert [cell.cell_id for cell in results.cells(packed)] == ["0" * 12]
    assert set(results.load(packed, trials=True)["run_id"]) == {run, trial, other}
    assert results.load(packed)["run_id"].tolist() == [run]
    (study / "cells" / ("0" * 12) / "record.json").unlink()
    with pytest.raises(InputError, match="not done"):
        pack_study(study, tmp_path / "nothing", partial=True)


@pytest.mark.parametrize(("content", "damaged_lines"), [(b"no JSON\n", 1), (b"", 0)])
def test_damage_to_packed_answers_is_found(batch, tmp_path, content, damaged_lines):
    study, run, *_ = batch
    pack_study(study, tmp_path / "packed")
    results.load(tmp_path / "packed")
    [file] = (tmp_path / "packed" / study.name / "runs" / run).rglob("items.jsonl")
    file.write_bytes(content)
    [damage] = verify(tmp_path / "packed" / study.name)
    assert damage.file.name == "items.jsonl"
    assert results.read_items(tmp_path / "packed" / study.name / "runs" / run) == ([], damaged_lines)


def test_a_study_with_open_cells_is_not_packed(batch, tmp_path):
    study, *_ = batch
    (study / "cells" / ("0" * 12) / "record.json").unlink()
    with pytest.raises(InputError, match="not done: 000000000000"):
        pack_study(study, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
