"""What holds for every finding that discovery lists."""

import pandas as pd
import pytest

from studykit import results
from studykit.findings import FINDINGS


@pytest.mark.parametrize("name", FINDINGS.names())
def test_a_finding_says_something_about_a_study_without_runs(name, tmp_path):
    finding = FINDINGS.member(name)(results.load(tmp_path / "nothing"))
    assert finding.table.empty
    assert finding.sentence
    assert FINDINGS.describe(name)


@pytest.mark.parametrize("name", [name for name in FINDINGS.names() if "score" in FINDINGS.options(name)])
def test_a_finding_about_a_score_names_a_metric_that_was_not_measured_and_those_that_were(name):
    shared = {"status": "done", "student": "a", "budget_examples": 10, "seed": 0, "steps": 5, "nll": 1.0}
    frame = pd.DataFrame([shared | {"method": method, "teacher": None} for method in ("sft", "kd")])
    sentence = FINDINGS.member(name)(frame).sentence
    assert "exact_match" in sentence
    assert "measured: nll" in sentence
