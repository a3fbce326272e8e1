"""What is brought into results/ of a study."""

import pytest

from studykit import results
from studykit.errors import InputError
from studykit.results import EvaluationWriter, RunWriter, open_study
from studykit.results.cells import add_run, finish_cell, write_cell
from studykit.results.record import CellSpec
from studykit.results.writer import Purpose
from studykit.spec import RunSpec
from tools.pack_study import pack_study

TRIAL = Purpose(arm="sft", trial_of="0a1b")


@pytest.fixture
def study(tmp_path):
    return open_study(tmp_path / "mine", "sample")


def spec_of(seed):
    data = {"source": "lexicon", "budget": {"examples": 100, "seed": seed}}
    stage = {"data": data, "method": "sft", "steps": 10, "learning_rate": 0.01}
    items = {"data": {"source": "lexicon", "split": "test"}}
    return RunSpec.parse({"student": {"name": "a"}, "stages": [stage], "evaluation": items, "seed": seed})


def write_run(study, cell, seed, purpose, is_finished=True):
    """Write a run of a cell, with a curve and weights, and return its id."""
    with RunWriter(study, spec_of(seed), purpose) as run:
        (run.folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
        (run.folder / "model").mkdir()
        (run.folder / "model" / "weights").write_text("heavy")
        if is_finished:
            run.finish({"train_s": 2.5}, [])
            with EvaluationWriter(run.folder, spec_of(seed).evaluation[0]) as measured:
                measured.write_items([{"id": "a", "answer": "b", "scores": {"exact_match": 1.0}}])
                measured.finish({"exact_match": 0.5}, cost={"evaluate_s": 0.5})
    add_run(cell, run.folder.name)
    return run.folder.name


def make_cell(study, number):
    folder = study / "cells" / f"{number:012x}"
    folder.mkdir(parents=True)
    write_cell(
        folder, CellSpec(cell_id=folder.name, notebook="01_data_size", notebooks="there", parameters={}, timeout_s=60)
    )
    return folder


def test_a_finished_study_comes_whole_without_weights_and_without_runs_of_no_cell(study, tmp_path):
    cell = make_cell(study, 1)
    reported, trial = write_run(study, cell, 0, Purpose(arm="sft")), write_run(study, cell, 1000, TRIAL)
    write_run(study, make_cell(tmp_path / "elsewhere", 9), 5, Purpose(arm="sft"))  # of no cell of this study
    finish_cell(cell, "done", wall_s=1.0)
    pack_study(study, tmp_path / "kept")
    copied = tmp_path / "kept" / "sample"
    assert set(results.load(copied, trials=True)["run_id"]) == {reported, trial}
    assert not list(copied.rglob("weights"))
    assert list((copied / "runs" / reported).glob("metrics*"))
    assert not list((copied / "runs" / trial).glob("metrics*"))


def test_what_is_not_done_is_refused_or_leaves_its_finished_trials(study, tmp_path):
    done, left = make_cell(study, 1), make_cell(study, 2)
    reported = write_run(study, done, 0, Purpose(arm="sft"))
    trial = write_run(study, left, 1000, TRIAL)
    write_run(study, left, 1, Purpose(arm="sft"))
    write_run(study, left, 1001, TRIAL, is_finished=False)
    with pytest.raises(InputError, match=r"not done: 000000000001, 000000000002"):
        pack_study(study, tmp_path / "kept")
    with pytest.raises(InputError, match="not done"):
        pack_study(study, tmp_path / "kept", partial=True)
    finish_cell(done, "done", wall_s=1.0)
    with pytest.raises(InputError, match=r"not done: 000000000002"):
        pack_study(study, tmp_path / "kept")
    pack_study(study, tmp_path / "kept", partial=True)
    copied = tmp_path / "kept" / "sample"
    assert [cell.cell_id for cell in results.cells(copied)] == [done.name]
    assert set(results.load(copied, trials=True)["run_id"]) == {reported, trial}
    assert results.load(copied)["run_id"].tolist() == [reported]
