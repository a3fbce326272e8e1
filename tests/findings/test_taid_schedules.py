"""Schedules of TAID at two gaps, on numbers that are known beforehand."""

from contrast_rows import frame_of, runs

from studykit.findings.taid import taid


def student(name, sft, kd, adaptive):
    taught = {"student": name, "teacher": "a", "teacher_exact_match": 0.6, "inputs": f"{name}a"}
    return [
        *runs("sft", sft, student=name, inputs=name),
        *runs("kd", kd, **taught),
        *runs("taid", adaptive, **taught),
        *runs("taid", kd, **taught, **{"method_options.schedule": "linear"}),
    ]


FRAME = frame_of(
    student("small", [10.0, 10.0, 10.0], [20.0, 22.0, 24.0], [25.0, 26.0, 27.0]),  # 5, 4, 3 at gap 50
    student("large", [40.0, 40.0, 40.0], [45.0, 45.0, 45.0], [45.0, 45.0, 45.0]),  # 0 at gap 20
)


def test_each_schedule_is_compared_with_kd_of_the_same_student_and_teacher_smallest_gap_first():
    table = taid(FRAME).table
    assert table["student"].tolist() == ["large"] * 4 + ["small"] * 4
    assert set(table["teacher"]) == {"a"}
    small = table[table["student"] == "small"].set_index("schedule")
    assert small.loc["taid", "score - kd"] == "+4.0 [+1.5, +6.5]"
    assert small.loc["taid", "gap"] == "+50.0"
    assert small.loc["taid (schedule=linear)", "score - kd"] == "+0.0 [+0.0, +0.0]"
    assert small.loc["sft", "score - kd"] == "-12.0 [-17.0, -7.0]"


def test_the_sentence_goes_from_the_smallest_gap_to_the_largest():
    sentence = taid(FRAME).sentence
    assert sentence.startswith("At 500 examples, at gaps of 20.0 (large), 50.0 (small), the mean differences to kd are")
    assert (
        ": taid +0.0 (tie), +4.0; taid (schedule=linear) +0.0 (tie), +0.0 (tie). Of 4: 3 tie, 1 cannot tell."
        in sentence
    )
    assert "sft" not in sentence


def test_a_schedule_that_lacks_a_gap_says_so():
    lacking = FRAME[(FRAME["student"] != "large") | (FRAME["method_options.schedule"] != "linear")]
    assert "taid (schedule=linear) not measured, +0.0 (tie)" in taid(lacking).sentence
