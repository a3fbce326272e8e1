"""The report on numbers that are known beforehand: which claims hold, and what a study cost."""

import pandas as pd

from studykit.findings import Finding, _report, judge
from studykit.findings._answers import Answer
from studykit.statistics import Interval


def answer(name, **differences):
    named = {key.replace("_", " "): value for key, value in differences.items()}
    found = judge({key: Interval(mean, mean - 1.5, mean + 1.5, 5) for key, mean in named.items()}, "exact_match")
    return Answer(name, Finding(pd.DataFrame(), f"about {name}", verdicts=found), pd.DataFrame())


def checked(*answers):
    rows = [_report._checked(claim, [("study", one) for one in answers]) for claim in _report.CLAIMS]
    return pd.DataFrame(rows).set_index("question", append=True)["here"].tolist()


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


def test_what_the_seeds_cannot_tell_is_open():
    assert checked(answer("data_size", at_500=0.5))[0] == "open"


def test_trials_are_counted_apart_from_what_they_chose():
    shared = {"status": "done", "train_s": 1800.0, "student_tokens": 10, "peak_mem_gib": 0.5}
    rows = [shared | {"run_id": str(i), "trial": i > 0, "eval_id": "e", "study": "one"} for i in range(3)]
    cost = _report._cost("one", pd.DataFrame(rows))
    assert (cost["runs"], cost["hours"], cost["tuning runs"], cost["tuning hours"]) == (1, 0.5, 2, 1.0)
    assert (cost["student reads"], cost["tuning student reads"], cost["peak GiB"]) == (10, 20, 0.5)
