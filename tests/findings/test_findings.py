"""What holds for every finding that discovery lists."""

import pandas as pd
import pytest

from studykit import results
from studykit.findings import FINDINGS, Finding
from studykit.findings._items import ItemEvidence
from studykit.findings._lines import Comparison, Line, intervals_over
from studykit.statistics import Interval


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


def test_it_says_what_its_intervals_are_over_by_what_is_stored():
    bounded, alone = Interval(1.0, 0.5, 1.5, 3), Interval(1.0, None, None, 1)
    stored = Comparison(bounded, bounded, items=ItemEvidence(bounded, {}, pd.DataFrame(index=range(10))))

    def over(*pairs):
        return intervals_over(Line(100, "kd", 3, score, nll, {}) for score, nll in pairs)

    assert over((stored, Comparison(bounded, bounded))) == {"score": "seeds and items", "nll": "seeds"}
    mixed = over((stored, None), (Comparison(bounded, bounded), None))
    assert mixed == {"score": "seeds, and items where all runs store them"}
    assert over((Comparison(bounded), Comparison(alone, alone))) == {}
    table = pd.DataFrame()
    assert Finding(table, "", {"intervals": over((stored, stored))}).intervals == "95% t intervals over seeds and items"
    assert Finding(table, "").intervals == "95% t intervals over seeds"
