"""Gain by number of teacher calls, on numbers that are known beforehand."""

from contrast_rows import frame_of, runs

from studykit.findings.scarce_teacher import scarce_teacher

TEACHER = {"teacher": "a", "teacher_exact_match": 0.6}
NOISY = TEACHER | {"method_options.prompt_dropout": 0.2}
CALLS = "stage_2.examples"

FRAME = frame_of(
    runs("sft", [10.0, 10.0, 10.0]),
    runs("sft > kd", [20.0, 22.0, 24.0], **TEACHER),  # both stages have all 500
    runs("sft > kd", [11.0, 12.0, 13.0], **TEACHER, **{CALLS: 100, "stage_1.examples": 500}),  # 1, 2, 3
    runs("sft > ckd", [15.0, 16.0, 17.0], **TEACHER, **{CALLS: 100, "stage_1.examples": 500}),  # 4 more than kd
    runs("r2kd", [9.0, 9.0, 9.0], **NOISY, **{"method_options.loss": "forward_kl", "teacher_pruned": None}),
    runs("r2kd", [12.0, 12.0, 12.0], **NOISY, teacher_pruned=0.2),
)


def test_settings_stand_by_calls_with_their_gain_over_fine_tuning():
    table = scarce_teacher(FRAME).table.set_index("arm")
    assert table.loc["sft > kd, 500 calls", "score - sft"] == "+12.0 [+7.0, +17.0]"
    assert table.loc["sft > kd, 100 calls", "score - sft"] == "+2.0 [-0.5, +4.5]"
    assert [name for name in table.index if "calls" in name] == [
        "sft > ckd, 100 calls",
        "sft > kd, 100 calls",
        "sft > kd, 500 calls",
    ]
    assert table.loc["r2kd (loss=forward_kl)", "score - sft"] == "-1.0 [-1.0, -1.0]"


def test_other_methods_are_compared_with_kd_at_as_many_calls():
    finding = scarce_teacher(FRAME)
    assert "sft > kd: 100 calls +2.0 [-0.5, +4.5] points" in finding.sentence
    assert "sft > ckd - sft > kd: 100 calls +4.0 [+4.0, +4.0] points, n = 3 seeds: helps." in finding.sentence
    assert (
        "Best of 2 with noise or correlation: r2kd, +2.0 [+2.0, +2.0] points, n = 3 seeds: helps." in finding.sentence
    )
    calls = {line["setting"]: line["options"].get("calls") for line in finding.numbers["lines"]}
    assert (calls["sft > kd, 500 calls"], calls["sft > ckd, 100 calls"], calls["sft"]) == (500.0, 100.0, None)
