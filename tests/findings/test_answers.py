"""Which findings a study has: by its notebooks, by what runs were trained for, and apart where notebooks differ."""

from pathlib import Path

import pandas as pd
import pytest

from studykit.findings._answers import find_answers
from studykit.results import CellSpec, CellState

RUNS = [
    {"run_id": f"{method}{seed}{batch}", "eval_id": "e", "study": "s", "ablation": "data_size", "status": "done",
     "method": method,
     "student": "small", "teacher": None, "budget_examples": 500, "seed": seed, "batch_size": batch,
     "exact_match": 0.3 + (method != "sft") / 10 + seed / 1000, "nll": 1.0}
    for method in ("sft", "kd", "gkd") for seed in (0, 1, 2) for batch in (8, 64)
]  # fmt: skip


@pytest.fixture
def frame():
    return pd.DataFrame([run for run in RUNS if run["batch_size"] == 64]).astype({"budget_examples": "Int64"})


def cell(name="01_data_size", runs=("sft064", "sft164", "sft264", "kd064", "kd164", "kd264"), **parameters):
    spec = CellSpec(cell_id="c", notebook=name, notebooks=".", parameters=parameters, timeout_s=1.0)
    return CellState(Path("c"), spec, "done", tuple(runs), ("e",))


def test_the_finding_of_a_notebook_is_that_of_its_name(frame):
    (answer,) = find_answers(frame, [cell(), cell("99_no_finding")], Path("none"), by_ablation=False)
    assert (answer.name, len(answer.cells), len(answer.runs)) == ("data_size", 1, 6)
    assert answer.finding.sentence.startswith("KD - SFT: helps at 500 examples")


def test_its_parameters_are_options_of_the_finding_and_keep_notebooks_apart(frame):
    runs = ["sft064", "sft164", "sft264", "gkd064", "gkd164", "gkd264"]
    answers = find_answers(frame, [cell(method="gkd", runs=runs, tie=50.0), cell(method="kd")], Path("none"))
    assert [next(iter(a.finding.verdicts)) for a in answers] == [
        "gkd - sft at 500 examples",
        "kd - sft at 500 examples",
    ]
    assert [one.word for a in answers for one in a.finding.verdicts.values()] == ["tie", "helps"]


def test_runs_outside_a_batch_count_by_what_they_were_trained_for(frame):
    (answer,) = find_answers(frame, [], Path("none"))
    assert (answer.name, answer.cells, len(answer.runs)) == ("data_size", (), 9)
    assert find_answers(frame, [], Path("none"), by_ablation=False) == []
    assert find_answers(frame.assign(ablation="of my own"), [], Path("none")) == []
    (answer,) = find_answers(frame, [cell(runs=["sft064", "kd064"])], Path("none"))
    assert len(answer.runs) == 9


def test_runs_that_a_notebook_found_by_their_content_are_of_its_question_alone(frame):
    whole = cell("04_student_size", runs=frame["run_id"].tolist())
    (answer,) = find_answers(frame, [whole], Path("none"))
    assert (answer.name, len(answer.runs)) == ("student_size", 9)
    part = cell("04_student_size", runs=frame["run_id"].tolist()[:6])
    assert [(a.name, len(a.runs)) for a in find_answers(frame, [part], Path("none"))] == [
        ("data_size", 3),
        ("student_size", 6),
    ]


def test_runs_that_cannot_be_compared_say_why():
    mixed = pd.DataFrame(RUNS).astype({"budget_examples": "Int64"})
    (answer,) = find_answers(mixed, [], Path("none"))
    assert answer.finding.table.empty
    assert answer.finding.sentence.startswith("no finding over all of these runs: ")
    assert "batch_size" in answer.finding.sentence
