"""What holds for every finding that discovery lists."""

import pytest

from studykit import results
from studykit.findings import FINDINGS


@pytest.mark.parametrize("name", FINDINGS.names())
def test_a_finding_says_something_about_a_study_without_runs(name, tmp_path):
    finding = FINDINGS.member(name)(results.load(tmp_path / "nothing"))
    assert finding.table.empty
    assert finding.sentence
    assert FINDINGS.describe(name)
