"""Every shipped notebook, executed from top to bottom in this process with the smallest parameters that will do."""

import ast
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from studykit.batch import notebooks
from studykit.findings import Finding

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "notebooks" / "12_report.ipynb"
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path != REPORT]
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
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


def test_the_report_reads_the_committed_studies(monkeypatch, capsys):
    monkeypatch.chdir(REPORT.parent)
    names, values = execute(REPORT, {})
    report = names["report"]
    assert set(report.costs["study"]) >= {"lexicon", "methods", "teacher_cache"}
    assert set(report.contrasts["question"]) >= {"data_size", "methods"}
    assert (report.claims["here"] == "as in the paper").any()
    assert any(isinstance(value, go.Figure) and value.data for value in values)
    printed = capsys.readouterr().out
    assert all(sentence in printed for sentence in report.sentences.values())


def test_a_report_without_results_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPORT.parent)
    names, _ = execute(REPORT, {"results": str(tmp_path)})
    assert set(names["report"].claims["here"]) == {"not measured"}
    assert "No study has a finding yet." in capsys.readouterr().out
