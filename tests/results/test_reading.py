"""Single runs, notebooks and logs: ids that lead nowhere else, torn and damaged lines."""

import json

import pytest

from studykit import results
from studykit.errors import InputError
from studykit.spec import Evaluation


@pytest.mark.parametrize(
    "run_id",
    ["../../../etc", "..", "", ".", "0123456789AB", "0123456789a", "0123456789abc", "0123456789ab/", "0123456789ab\n"],
)
def test_what_is_no_run_id_is_refused(study, run_id):
    with pytest.raises(InputError, match="is not a run id"):
        results.run_folder(study, run_id)
    with pytest.raises(InputError, match="no run"):
        results.find_run(study.parent, run_id)


def test_a_link_that_leads_elsewhere_is_refused(study, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "record.json").write_text("{}")
    (study / "runs" / "0123456789ab").symlink_to(tmp_path / "secret", target_is_directory=True)
    for look in (results.run_folder, results.find_run):
        with pytest.raises(InputError, match="is not a run id"):
            look(study, "0123456789ab")


def test_a_run_that_is_not_there_is_refused(study):
    with pytest.raises(InputError, match="no run 0123456789ab in"):
        results.run_folder(study, "0123456789ab")
    with pytest.raises(InputError, match="no run '0123456789ab' under"):
        results.find_run(study.parent, "0123456789ab")


def test_a_run_is_found_in_any_study(study):
    [run_id, *_] = results.load(study)["run_id"]
    folder = results.find_run(study.parent, run_id)
    assert folder == results.run_folder(study, run_id)
    record = results.read_record(folder)
    assert record is not None
    assert json.loads(record.spec.canonical()) == results.read_spec(folder)
    assert results.read_items(folder) == ([{"id": "a", "answer": "K AE T", "scores": {"exact_match": 1.0}}], 0)
    metrics, damaged = results.read_metrics(folder)
    assert (metrics["loss"].tolist(), damaged) == ([2.5, 2.0], 0)


def test_the_share_of_steps_that_older_runs_log_is_not_read_as_passes_over_the_data(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 0.5}\n{"step": 2, "epoch": 1.0}\n')
    curve, _ = results.read_metrics(tmp_path)
    assert curve.columns.tolist() == ["step", "share_of_steps"]


def test_an_unterminated_last_line_is_dropped_and_damaged_ones_are_counted(tmp_path):
    file = tmp_path / "items.jsonl"
    file.write_bytes(b'{"id": 1}\n{"id": \n[1]\n\n\xff\xfe\n{"id": 2}\n{"id": 3}')
    assert results.read_lines(file) == ([{"id": 1}, {"id": 2}], 4)
    file.write_text('{"id": 1}')
    assert results.read_lines(file) == ([], 0)
    assert results.read_lines(tmp_path / "none") == ([], 0)


def test_a_line_separator_inside_an_answer_ends_no_line(study):
    answer = "one\u2028two\x85three\u2029four\x0bfive"
    [run, *_] = (study / "runs").iterdir()
    evaluation = Evaluation.parse({"data": {"source": "lexicon"}})
    with results.EvaluationWriter(run, evaluation) as measured:
        measured.write_items([{"id": "a", "answer": answer}, {"id": "b", "answer": "fine"}])
        measured.finish({})
    assert results.read_items(run, evaluation.eval_id) == (
        [{"id": "a", "answer": answer}, {"id": "b", "answer": "fine"}],
        0,
    )


def test_an_executed_notebook_is_read_with_its_texts_joined(tmp_path):
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b"]},
        {"output_type": "display_data", "data": {"text/html": ["<b>", "x</b>"], "application/json": ["kept"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# T\n", "itle"]},
        {"cell_type": "code", "source": "x", "outputs": outputs},
    ]
    (tmp_path / "notebook.ipynb").write_text(json.dumps({"cells": cells}))
    title, code = results.read_notebook(tmp_path)
    assert (title["source"], title["outputs"]) == ("# T\nitle", [])
    assert code["outputs"][0]["text"] == "a\nb"
    assert code["outputs"][1]["data"] == {"text/html": "<b>x</b>", "application/json": ["kept"]}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cells": [{}]}', '{"cells": [3]}'])
def test_what_is_no_notebook_is_refused(tmp_path, text):
    (tmp_path / "notebook.ipynb").write_text(text)
    with pytest.raises(InputError, match="is no executed notebook"):
        results.read_notebook(tmp_path)


def test_a_notebook_or_log_that_is_not_there_is_empty(tmp_path):
    assert results.read_notebook(tmp_path) == []
    assert results.read_log(tmp_path) == ""
    (tmp_path / "log.txt").write_text("x" * 50 + "the end")
    assert results.read_log(tmp_path, last_bytes=7) == "the end"
