"""The page of findings has each run of a question once."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from tools import findings_page


def answer(name, *runs):
    done = pd.DataFrame({"run_id": runs, "status": "done"})
    return SimpleNamespace(name=name, runs=done, finding=SimpleNamespace(table=done))


@pytest.mark.parametrize("order", [("lexicon", "part", "apart"), ("part", "apart", "lexicon")])
def test_a_finding_from_a_part_of_the_runs_of_another_is_left_out(monkeypatch, order):
    answers = {
        "lexicon": [answer("data_size", "a", "b", "c")],
        "part": [answer("data_size", "a", "c"), answer("teacher_strength", "a", "c")],
        "apart": [answer("data_size", "a", "d")],
    }
    monkeypatch.setattr(findings_page, "committed", lambda: order)
    monkeypatch.setattr(findings_page.results, "studies", lambda root: [Path(name) for name in order])
    monkeypatch.setattr(findings_page.results, "load", lambda folder: None)
    monkeypatch.setattr(findings_page.results, "cells", lambda folder: None)
    monkeypatch.setattr(findings_page, "find_answers", lambda runs, cells, folder: answers[folder.name])
    shown = [(folder.name, one.name) for folder, one in findings_page.studied(Path())]
    assert shown == [("apart", "data_size"), ("lexicon", "data_size"), ("part", "teacher_strength")]
