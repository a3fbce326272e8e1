"""Findings that rank settings against one of them, on numbers that are known beforehand."""

import json

import pytest
from contrast_rows import frame_of, runs

from studykit.findings import judge
from studykit.findings.data_selection import data_selection
from studykit.findings.divergences import divergences
from studykit.findings.on_policy import on_policy
from studykit.statistics import Interval

KD = [20.0, 22.0, 24.0]
TEACHER = {"teacher": "a", "teacher_exact_match": 0.6}


def plain(finding):
    assert json.loads(json.dumps(finding.numbers)) == finding.numbers
    return finding


def test_divergences_stand_best_first_with_their_difference_to_forward_kl():
    frame = frame_of(
        runs("sft", [15.0, 18.0, 18.0]),  # -5, -4, -6
        runs("kd", KD, **TEACHER),
        runs("gkd", [25.0, 26.0, 27.0], **TEACHER, **{"method_options.beta": 0.1}),  # 5, 4, 3
        runs("gkd", [10.0, 12.0, 14.0], **TEACHER, **{"method_options.beta": 0.9}),  # -10, -10, -10
    )
    finding = plain(divergences(frame))
    table = finding.table.set_index("divergence")
    assert table.index.tolist() == ["gkd (beta=0.1)", "kd", "sft", "gkd (beta=0.9)"]
    assert table["score - kd"].tolist() == ["+4.0 [+1.5, +6.5]", "", "-5.0 [-7.5, -2.5]", "-10.0 [-10.0, -10.0]"]
    assert "At 500 examples gkd (beta=0.1) is best, +4.0 [+1.5, +6.5] points, n = 3 seeds" in finding.sentence
    assert "Against kd, of 3: " in finding.sentence
    assert finding.verdicts["gkd (beta=0.9) at 500 examples"].word == "hurts"
    options = {line["setting"]: line["options"] for line in finding.numbers["lines"]}
    assert options["gkd (beta=0.9)"] == {"beta": 0.9}
    assert options["kd"] == {}


def test_the_gap_to_the_teacher_is_measured_from_the_students_without_one():
    frame = frame_of(runs("sft", [10.0, 12.0, 14.0]), runs("kd", KD, **TEACHER))
    assert divergences(frame).table.set_index("divergence")["gap"].to_dict() == {"sft": "", "kd": "+48.0"}


def cost(seconds, generated=None, scored=None):
    return {"train_s": seconds, "generated_tokens": generated, "teacher_tokens": 100.0, "scored_tokens": scored}


def test_recipes_that_no_cheaper_one_equals_are_named():
    frame = frame_of(
        runs("sft", [10.0, 10.0, 10.0], train_s=5.0),
        runs("kd", KD, **TEACHER, **cost(10.0)),
        runs("gkd", [21.0, 22.0, 23.0], **TEACHER, **cost(20.0, 700.0)),  # as good as kd, and slower
        runs("skd", [30.0, 30.0, 30.0], **TEACHER, **cost(40.0, 900.0, 50.0)),
    )
    finding = plain(on_policy(frame))
    assert finding.numbers["fronts"] == [{"budget_examples": 500, "cost": "train_s", "settings": ["sft", "kd", "skd"]}]
    assert "Nothing scores as much in fewer seconds than sft, kd, skd." in finding.sentence
    table = finding.table.set_index("recipe")
    assert list(table.loc["skd", ["teacher reads", "generated", "seconds"]]) == [150, 900, 40]
    assert list(table.loc["sft", ["teacher reads", "generated", "seconds"]]) == [0, 0, 5]


def test_ways_to_choose_are_compared_with_a_random_part_of_the_same_size():
    select = "method_options.select"
    frame = frame_of(
        runs("sft", [30.0, 30.0, 30.0]),
        runs("miniplm", [21.0, 22.0, 23.0], teacher="a", scored_tokens=70.0),
        runs("miniplm", KD, **{select: "uniform"}),
        runs("miniplm", [15.0, 18.0, 18.0], teacher="a", **{select: "teacher_nll"}),
        runs("gkd", [99.0, 99.0, 99.0], teacher="b"),
    )
    finding = plain(data_selection(frame))
    table = finding.table.set_index("kept by")
    assert sorted(table.index) == ["all", "difference", "teacher_nll", "uniform"]
    assert table.loc["teacher_nll", "score - uniform"] == "-5.0 [-7.5, -2.5]"
    assert table.loc["difference", "teacher reads"] == 70
    assert "At 500 examples all is best, +8.0 [+3.0, +13.0] points" in finding.sentence
    assert "difference: " in finding.sentence


@pytest.mark.parametrize("finding", [divergences, on_policy, data_selection])
def test_teachers_are_not_mixed(finding):
    frame = frame_of(runs("miniplm", KD, teacher="a"), runs("sft", KD), runs("miniplm", KD, teacher="b"))
    with pytest.raises(ValueError, match="compares one teacher, the table holds a, b"):
        finding(frame)


def test_a_planned_contrast_that_cannot_be_computed_yet_counts_all_the_same():
    sure = Interval(3.0, 0.7, 5.3, 3)
    alone, beside = judge({"kd": sure}, "exact_match"), judge({"kd": sure, "gkd": None, "skd": None}, "exact_match")
    assert list(beside) == ["kd"]
    assert (alone["kd"].word, beside["kd"].word) == ("helps", "cannot tell")
