"""The report on numbers that are known beforehand: which claims hold, and what a study cost."""

from typing import Any

import pandas as pd

from studykit.figures.paper_findings import paper_findings
from studykit.findings import Finding, _report, judge
from studykit.findings._answers import Answer
from studykit.findings._claims import CLAIMS, check_claims, check_reasons
from studykit.statistics import Interval


def answer(name, **differences):
    named = {key.replace("_", " "): value for key, value in differences.items()}
    found = judge({key: Interval(mean, mean - 1.5, mean + 1.5, 5) for key, mean in named.items()}, "exact_match")
    return Answer(name, Finding(pd.DataFrame(), f"about {name}", verdicts=found), pd.DataFrame())


def checked(*answers):
    return [check.here for check in check_claims([("study", one) for one in answers])]


def test_a_claim_is_checked_by_the_contrast_that_was_planned_for_it():
    sizes = answer("data_size", at_500=3.0, at_5000=1.0, at_40000=-4.0)
    students = Answer("student_size", answer("student_size", gain=9.0).finding, pd.DataFrame())
    students.finding.verdicts["small - large at 500 examples"] = judge(
        {"x": Interval(-3.0, -4.0, -2.0, 5)}, "exact_match"
    )["x"]
    assert checked(sizes, students) == [
        "as in the paper",
        "as in the paper",
        "not measured",
        "otherwise",
        "not measured",
    ]


def test_the_doubt_about_a_claim_comes_after_it(tmp_path):
    there = answer("data_size", at_500=3.0)
    answers = [("confirmation", there), ("default_rate", there)]
    checks = [*_report._in_turn(check_claims(answers), check_reasons(answers))]
    assert [check.here for check in checks[:2]] == ["as in the paper", "not confirmed"]
    assert _report._line(checks[1]).startswith("    - Doubt, tested by a further run: one trial seed chose")


def test_values_at_the_edge_of_their_grids_are_named():
    runs = pd.DataFrame({"tuned_at_edge": ["no", "learning_rate, steps", None, "steps"]})
    found = Answer("data_size", answer("data_size", at_500=3.0).finding, runs)
    check = check_claims([("one", found)])[0]
    assert check.at_edge == ("learning rate", "steps")
    assert "chose learning rate and steps at the edge of a grid" in _report._line(check)


def test_a_study_that_was_run_for_a_reason_tests_no_claim():
    assert check_claims([("default_rate", answer("data_size", at_500=3.0))])[0].here == "not measured"


def test_what_the_seeds_cannot_tell_is_open():
    assert checked(answer("data_size", at_500=0.5))[0] == "open"


def test_trials_are_counted_apart_from_what_they_chose():
    shared = {"status": "done", "train_s": 1800.0, "student_tokens": 10, "peak_mem_gib": 0.5}
    rows = [
        shared | {"run_id": str(i), "trial": i > 0, "eval_id": "e", "study": "one", "ablation": None} for i in range(3)
    ]
    cost = _report._cost("one", pd.DataFrame(rows))
    assert (cost["runs"], cost["hours"], cost["tuning runs"], cost["tuning hours"]) == (1, 0.5, 2, 1.0)
    assert (cost["student reads"], cost["tuning student reads"], cost["peak GiB"]) == (10, 20, 0.5)


def test_what_teachers_wrote_for_the_data_is_a_cost():
    written = {"synthetic_tokens": 30, "synthetic_prompt_tokens": 50, "synthetic_s": 7200.0, "teacher_tokens": 5}
    row = {"run_id": "a", "eval_id": "e", "study": "one", "ablation": None, "status": "done", "generated_tokens": 4}
    cost = _report._cost("one", pd.DataFrame([row | written]))
    assert (cost["teacher reads"], cost["generated"], cost["hours"]) == (85, 34, 2.0)


def two_stages(order, slower):
    mixture = "at 200 examples - the best mixture (50% synthetic)"
    return answer(
        "two_stage", **{f"order {mixture}": order, f"order (steps 9:1, learning rates 1:0.1) {mixture}": slower}
    )


def test_a_reason_is_checked_by_the_run_that_was_planned_for_it():
    [check] = check_reasons([("study", two_stages(-9.0, 3.0))])
    assert (check.here, check.contrast.partition(" at ")[0]) == (
        "confirmed",
        "order (steps 9:1, learning rates 1:0.1)",
    )
    assert [check.here for check in check_reasons([("study", two_stages(-9.0, -4.0))])] == ["not confirmed"]
    assert [check.here for check in check_reasons([("study", two_stages(-9.0, 0.2))])] == ["open"]
    assert check_reasons([]) == []


def test_a_reason_that_one_study_tests_is_not_read_from_others():
    gained = Answer("student_size", answer("student_size", **{"small - large": 5.0}).finding, pd.DataFrame())
    assert check_reasons([("other", gained)]) == []
    assert [check.here for check in check_reasons([("longer_training", gained)])] == ["confirmed"]


def test_the_abstract_has_every_claim_and_below_those_that_are_not_there_the_reason(tmp_path):
    sections = (
        _report.Section(tmp_path / "one", two_stages(-9.0, -4.0)),
        _report.Section(tmp_path / "one", answer("data_size", at_500=3.0)),
    )
    answers = [(section.folder.name, section.answer) for section in sections]
    checks = (*_report._in_turn(check_claims(answers), check_reasons(answers)),)
    costs = pd.DataFrame([{"runs": 12, "tuning runs": 8, "hours": 1.0, "tuning hours": 0.5}])
    report = _report.Report(sections, checks, pd.DataFrame(), costs, ("one",))
    text = report.abstract()
    assert "1 study, 12 finished runs and 8 trials of tuning took 1.5 hours" in text
    assert f"makes {len(CLAIMS)} claims" in text
    assert "- Two stages beat naive mixing: **otherwise**. order at 200 examples" in text
    assert "    - Possible reason, tested by a further run: the last stage begins" in text
    assert "**not confirmed**. order (steps 9:1" in text
    assert report.claim_lines().splitlines() == [line for line in text.splitlines() if line.startswith("- ")]
    assert report.reasons["tested"].tolist() == ["not confirmed"]
    figure: Any = paper_findings(checks)
    assert [(trace.name, len(trace.x)) for trace in figure.data] == [
        ("as in the paper", 1),
        ("otherwise", 2),
        ("not confirmed", 1),
    ]


def test_runs_that_several_studies_share_count_once(tmp_path, monkeypatch):
    rows = [
        {"run_id": str(i), "eval_id": "e", "status": "done", "train_s": 3600.0, "study": "one", "ablation": None}
        for i in (1, 2)
    ]
    frames = {"one": pd.DataFrame(rows), "two": pd.DataFrame(rows[:1])}
    monkeypatch.setattr(_report.results, "studies", lambda root: [tmp_path / name for name in frames])
    monkeypatch.setattr(_report.results, "load", lambda folder, trials=False: frames[folder.name])
    monkeypatch.setattr(_report.results, "cells", lambda folder: [])
    costs = _report.read_report(tmp_path).costs.set_index("study")
    assert costs["runs"].to_dict() == {"one": 2, "two": 1, _report.ALL: 2}
    assert costs["hours"].to_dict() == {"one": 2.0, "two": 1.0, _report.ALL: 2.0}
