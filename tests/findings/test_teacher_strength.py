"""Gain against the teacher's strength, on numbers that are known beforehand."""

import json

import pytest
from contrast_rows import frame_of, runs

from studykit.findings.teacher_strength import teacher_strength

SFT = [10.0, 12.0, 14.0]
_SLOPE = "Among teachers not below the students, each point of gap goes with +0.15 [+0.09, +0.21] points of gain"


def kd(teacher, points, score, **columns):
    return runs("kd", points, teacher=teacher, teacher_exact_match=score / 100, inputs=teacher, **columns)


@pytest.fixture
def frame():
    return frame_of(
        runs("sft", SFT),
        kd("strong", [18.0, 20.0, 22.0], 52.0),  # 8, 8, 8 at gap 40
        kd("weak", [13.0, 14.0, 15.0], 12.0),  # 3, 2, 1: t(2; 0.975) / √3 = 2.4841, at gap 0
        kd("middle", [15.0, 16.0, 17.0], 32.0),  # 5, 4, 3 at gap 20
    )


def test_teachers_stand_weakest_first_with_score_gap_and_paired_gain(frame):
    table = teacher_strength(frame).table.set_index("teacher")
    assert table.index.tolist() == ["sft", "weak", "middle", "strong"]
    assert table["teacher scores"].tolist() == ["", "12.0", "32.0", "52.0"]
    assert table["gap"].tolist() == ["", "+0.0", "+20.0", "+40.0"]
    assert table["score"].tolist() == [12.0, 14.0, 16.0, 20.0]
    assert table.loc["weak", "score - sft"] == "+2.0 [-0.5, +4.5]"
    assert table.loc["middle", "score - sft"] == "+4.0 [+1.5, +6.5]"
    assert table.loc["strong", "verdict"] == "helps"
    assert table.loc["weak", "NLL - sft"] == "-0.020 [-0.045, +0.005]"


def test_the_sentence_has_all_gains_the_step_to_the_strongest_and_the_slope(frame):
    sentence = teacher_strength(frame).sentence
    assert "At 500 examples students gain from weak (gap +0.0) +2.0 [-0.5, +4.5] points, n = 3 seeds" in sentence
    assert "The strongest teacher against the next: +4.0 [+1.5, +6.5] points" in sentence
    # per seed the gains 3, 5, 8 and 2, 4, 8 and 1, 3, 8 at gaps 0, 20, 40: slopes 5 / 40, 6 / 40, 7 / 40
    assert _SLOPE in sentence


def test_teachers_below_the_students_do_not_bend_the_slope(frame):
    below = frame_of(frame.to_dict("records"), kd("weaker", [1.0, 0.0, 3.0], 2.0))
    assert _SLOPE in teacher_strength(below).sentence


def test_every_gain_and_step_is_a_planned_contrast(frame):
    finding = teacher_strength(frame)
    assert list(finding.verdicts) == [
        "weak at 500 examples",
        "middle at 500 examples",
        "strong at 500 examples",
        "strong - middle at 500 examples",
    ]
    assert finding.numbers["verdicts"]["strong at 500 examples"]["word"] == "helps"
    assert json.loads(json.dumps(finding.numbers)) == finding.numbers


def test_the_sentence_has_the_smallest_and_the_largest_budget_and_the_table_all(frame):
    larger = [frame.assign(budget_examples=n, run_id=frame["run_id"] + str(n)) for n in (900, 4000)]
    both = frame_of(*(part.to_dict("records") for part in (frame, *larger)))
    finding = teacher_strength(both)
    assert sorted(set(finding.table["budget"])) == [500, 900, 4000]
    assert "At 500" in finding.sentence
    assert "At 4,000" in finding.sentence
    assert "At 900" not in finding.sentence


def test_one_seed_has_no_interval_and_two_teachers_no_slope(frame):
    one = frame[(frame["seed"] == 0) & (frame["teacher"] != "middle")]
    finding = teacher_strength(one)
    assert "+8.0 points, n = 1 seed: cannot tell (one seed gives no interval)" in finding.sentence
    assert "point of gap" not in finding.sentence


def test_options_that_differ_beside_the_teacher_are_refused(frame):
    other = kd("weak", [1.0, 2.0, 3.0], 12.0)
    more = frame_of(frame.to_dict("records"), [row | {"learning_rate": 0.1, "run_id": "x"} for row in other])
    with pytest.raises(ValueError, match="several values of learning_rate"):
        teacher_strength(more)


def test_a_budget_with_nothing_to_compare_is_left_out(frame):
    more = frame_of(frame.to_dict("records"), runs("sft", SFT, budget=200))
    assert set(teacher_strength(more).table["budget"]) == {500}
    alone = teacher_strength(frame_of(runs("sft", SFT)))
    assert alone.table.empty
    assert alone.sentence == "No budget has both sft and another teacher finished yet."
