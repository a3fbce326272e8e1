"""Every shipped notebook, executed from top to bottom in this process with the smallest parameters that will do."""

import ast
import contextlib
import io
from functools import cache
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from fake_notebooks import trains

from studykit.batch import notebooks
from studykit.findings import Finding

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPORT = ROOT / "notebooks" / "12_report.ipynb"
SMALLEST = {
    "steps": 4,
    "batch_size": 4,
    "budget_examples": 12,
    "max_new_tokens": 3,
    "test_items": 6,
    "test_batch_size": 6,
    "validation_items": 4,
    "student": "lexicon/base-small",
    "prompts": 40,
    "written": {"greedy": {"keep_cut": True}},
    "synthetic_examples": [12],
    "teacher_calls": [6, 12],
}
SMALLEST_OF = {"04_student_size": {"student": "lexicon/base-medium"}}


def execute(path: Path, parameters: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Run the code cells and return their names, and the value that each cell ends in."""
    names: dict[str, Any] = {"__name__": "__main__"}
    values: list[Any] = []
    for source, tags in notebooks._code_cells(path):
        body = ast.parse(source).body
        last = body[-1].value if isinstance(body[-1], ast.Expr) else None
        body = body if last is None else body[:-1]
        exec(compile(ast.Module(body, []), path.name, "exec"), names)
        if "parameters" in tags:
            names.update(parameters)
        if last is not None:
            values.append(eval(compile(ast.Expression(last), path.name, "eval"), names))
    return names, values


@pytest.mark.parametrize("path", list(filter(trains, NOTEBOOKS)), ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom_and_ends_in_a_finding(path, tmp_path, monkeypatch, capsys, one_thread):
    known = notebooks.defaults(path)
    smallest = {name: value for name, value in SMALLEST.items() if name in known} | SMALLEST_OF.get(path.stem, {})
    parameters = notebooks.check_parameters(path, smallest | {"results": str(tmp_path), "keep": "none"})
    monkeypatch.chdir(path.parent)
    names, values = execute(path, parameters)
    figures = [value for value in values if isinstance(value, go.Figure)]
    assert figures
    assert all(figure.data for figure in figures)
    finding = names["finding"]
    assert isinstance(finding, Finding)
    assert finding.sentence in capsys.readouterr().out
    assert len(finding.table) >= 1
    assert len(names["runs"]) == len(names["arms"])


def test_methods_are_compared_with_runs_that_another_question_trained_first(tmp_path, monkeypatch, one_thread):
    lines = []
    for name in ("01_data_size", "02_methods"):
        path = ROOT / "notebooks" / f"{name}.ipynb"
        known = notebooks.defaults(path)
        smallest = {name: value for name, value in SMALLEST.items() if name in known}
        monkeypatch.chdir(path.parent)
        names, _ = execute(path, smallest | {"results": str(tmp_path), "keep": "none"})
        lines = names["finding"].numbers["lines"]
    assert {"data_size", "methods"} <= set(names["frame"]["ablation"])
    assert {line["method"] for line in lines if "score_difference" in line} == {*names["arms"]} - {"sft"}


@cache
def read(path: Path, results: Path | None) -> tuple[dict[str, Any], list[Any], str]:
    """Execute a notebook that only reads, and return its names, values and what it prints; None: committed results."""
    printed = io.StringIO()
    with contextlib.chdir(path.parent), contextlib.redirect_stdout(printed):
        return *execute(path, {} if results is None else {"results": str(results)}), printed.getvalue()


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if not trains(path)], ids=lambda path: path.stem)
def test_a_notebook_that_only_reads_shows_what_there_is(path, tmp_path):
    for folder in (None, tmp_path):
        names, values, printed = read(path, folder)
        assert names["arms"] == {}
        assert printed.strip()
        assert any(isinstance(value, go.Figure) for value in values)
    assert not list(tmp_path.iterdir())


def test_the_report_reads_the_committed_studies():
    names, values, printed = read(REPORT, None)
    report = names["report"]
    assert set(report.costs["study"]) >= {"lexicon", "methods", "teacher_cache"}
    assert set(report.contrasts["question"]) >= {"data_size", "methods"}
    assert (report.claims["here"] == "as in the paper").any()
    assert any(isinstance(value, go.Figure) and value.data for value in values)
    shown = [part.data for part in names["parts"] if not isinstance(part, go.Figure)]
    assert [section.answer.finding.sentence in text for section, text in zip(report.sections, shown, strict=True)]
    assert sum(isinstance(part, go.Figure) for part in names["parts"]) >= 8
    assert printed.strip()


def test_a_report_without_results_says_so(tmp_path):
    names, _, _ = read(REPORT, tmp_path)
    assert set(names["report"].claims["here"]) == {"not measured"}
    assert names["report"].abstract() == "No study has a finding yet."
    assert names["parts"] == []
