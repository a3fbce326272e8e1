"""Cells of batches: their status, which runs are theirs, and what a damaged one leaves readable."""

import json
from types import SimpleNamespace

import pytest
from traitlets.config import Application, Config

from studykit import results
from studykit.errors import InputError
from studykit.files.leases import take
from studykit.results import CellRecord, CellSpec, Purpose, RunWriter
from studykit.results.cells import (
    HypothesisTime,
    add_run,
    finish_cell,
    hypothesis_time,
    kernel_arguments,
    read_cell,
    read_cell_spec,
    start_cell,
    write_cell,
)
from studykit.results.record import RECORD_SCHEMA, Hypothesis

PARAMETERS = {"seed": 1, "teacher": None, "nested": {"none": None}}


@pytest.fixture
def make_cell(study):
    """Write the `cell.json` of a cell and return its folder."""

    def make(name="a"):
        folder = study / "cells" / name
        write_cell(folder, CellSpec(cell_id=name, notebook="n", notebooks="..", parameters=PARAMETERS, timeout_s=60))
        return folder

    return make


def test_what_a_cell_executes_is_read_as_it_was_written(make_cell):
    folder = make_cell()
    assert read_cell_spec(folder).parameters == PARAMETERS
    assert json.loads((folder / "cell.json").read_text())["schema"] == RECORD_SCHEMA


def test_a_folder_without_one_is_no_cell(tmp_path):
    with pytest.raises(InputError, match=r"has no cell\.json"):
        read_cell_spec(tmp_path)


def test_cells_show_their_status(study, make_cell):
    done, running, _ = (make_cell(name) for name in "abc")
    finish_cell(done, "done", wall_s=1.26)
    lease = take(running)
    assert lease is not None
    with lease:
        assert {cell.cell_id: cell.status for cell in results.cells(study)} == {
            "a": "done",
            "b": "running",
            "c": "stale",
        }
        assert take(running) is None
    assert [cell.status for cell in results.cells(study)] == ["done", "stale", "stale"]
    assert read_cell(done).wall_s == 1.3


@pytest.mark.parametrize("file", ["cell.json", "record.json"])
@pytest.mark.parametrize("text", ["{torn", "[]", "{}", '{"schema": 99}', '{"status": "good", "wall_s": 1}', "\udcff"])
def test_a_damaged_cell_has_failed_with_the_reason_and_spoils_no_other(study, make_cell, file, text):
    good, bad = make_cell("good"), make_cell("bad")
    finish_cell(good, "done", wall_s=1.0)
    (bad / file).write_text(text, errors="surrogateescape")
    damaged, other = results.cells(study)
    assert (damaged.status, other.status) == ("failed", "done")
    assert str(bad / file) in (damaged.error or "")


def test_runs_opened_in_the_kernel_of_a_cell_are_the_cells(study, make_cell, make_run, make_spec, monkeypatch):
    folder = make_cell()
    make_run(study, make_spec("sft", 100))  # outside a cell it counts for none
    shell = SimpleNamespace(config=_configuration(kernel_arguments(folder)))
    with monkeypatch.context() as kernel:
        kernel.setattr("IPython.core.getipython.get_ipython", lambda: shell)
        first = make_run(study, make_spec("kd", 500)).name
        with RunWriter(study, make_spec("sft", 100)) as found:  # finished long ago, and read by the cell
            assert found.is_done
        make_run(study, make_spec("kd", 500))
        assert read_cell(folder).runs == (first, found.folder.name)  # also while it works
    make_run(study, make_spec("kd", 100))
    assert finish_cell(folder, "failed", wall_s=2.0, error="broken").runs == (first, found.folder.name)
    cell = read_cell(folder)
    assert (cell.status, cell.error, len(cell.runs)) == ("failed", "broken", 2)
    assert {file.name for file in folder.iterdir()} == {"cell.json", "record.json"}


def _configuration(arguments: list[str]) -> Config:
    """Return what a kernel reads from its command line."""
    application = Application()
    application.parse_command_line(arguments)
    return application.config


def test_a_cell_that_is_tried_again_starts_without_record_and_runs(make_cell):
    folder = make_cell()
    add_run(folder, "0" * 12)
    finish_cell(folder, "failed", wall_s=1.0)
    add_run(folder, "1" * 12)  # of an execution that was killed
    start_cell(folder)
    assert not (folder / "record.json").exists()
    assert finish_cell(folder, "done", wall_s=1.0) == CellRecord(status="done", wall_s=1.0)


def hypothesis(text, written):
    return Hypothesis(sha256=text, written=written)


def test_a_hypothesis_keeps_the_time_of_its_first_writing_as_long_as_its_text_is_the_same(make_cell):
    folder = make_cell()
    spec = read_cell_spec(folder)
    for text, day, kept in (("a", 1, 1), ("a", 2, 1), ("b", 3, 3)):
        write_cell(folder, spec.model_copy(update={"hypothesis": hypothesis(text, f"2026-01-0{day}T00:00:00+00:00")}))
        assert read_cell_spec(folder).hypothesis == hypothesis(text, f"2026-01-0{kept}T00:00:00+00:00")


def test_a_hypothesis_keeps_its_time_when_the_code_of_its_notebook_changes(make_cell):
    first, second, other = (make_cell() for _ in range(3))
    spec = read_cell_spec(first)
    write_cell(first, spec.model_copy(update={"hypothesis": hypothesis("a", "2026-01-01T00:00:00+00:00")}))
    later = spec.model_copy(update={"hypothesis": hypothesis("a", "2026-01-02T00:00:00+00:00")})
    (first.parent / "damaged").mkdir()
    (first.parent / "damaged" / "cell.json").write_text("{")
    write_cell(second, later)
    assert read_cell_spec(second).hypothesis == hypothesis("a", "2026-01-01T00:00:00+00:00")
    write_cell(other, later.model_copy(update={"notebook": "02_other"}))
    assert read_cell_spec(other).hypothesis == later.hypothesis


@pytest.mark.parametrize(
    ("year", "notebook", "words"),
    [
        (2020, "01_data_size", "before all 2 runs"),
        (2099, "01_data_size", "after 2 of 2 runs"),
        (2099, "03_teacher_strength", "before 0 of 2 runs; 2 are shared with earlier studies"),
    ],
)
def test_a_hypothesis_came_before_runs_of_its_question_or_after_some_that_are_shared(
    study, make_cell, make_spec, year, notebook, words
):
    folder = make_cell()
    assert hypothesis_time(read_cell(folder)) is None
    more = {"hypothesis": hypothesis("a", f"{year}-01-01T00:00:00+00:00"), "notebook": notebook}
    write_cell(folder, read_cell_spec(folder).model_copy(update=more))
    assert hypothesis_time(read_cell(folder)) is None  # no run yet
    for method in ("sft", "kd"):
        with RunWriter(study, make_spec(method, 100), ablation="data_size") as run:
            run.finish({}, [])
        add_run(folder, run.folder.name)
    assert str(hypothesis_time(read_cell(folder))) == words


def test_a_hypothesis_that_came_after_some_runs_says_how_many_are_shared():
    assert str(HypothesisTime(22, 0, 2)) == "before 20 of 22 runs; 2 are shared with earlier studies"
    assert str(HypothesisTime(22, 3, 1)) == "after 3 of 22 runs; 1 more is shared with earlier studies"
    assert str(HypothesisTime(1, 0, 0)) == "before the run"


def test_a_trial_that_another_cell_has_trained_does_not_come_before_a_hypothesis(study, make_cell, make_run, make_spec):
    folder, trial = make_cell(), make_spec("sft", 100, 1000)
    with RunWriter(study, trial, Purpose(arm="sft", trial_of="0a1b")) as run:
        run.finish({}, [])
    write_cell(
        folder, read_cell_spec(folder).model_copy(update={"hypothesis": hypothesis("a", "2099-01-01T00:00:00+00:00")})
    )
    add_run(folder, trial.run_id)
    assert hypothesis_time(read_cell(folder)) is None
