"""Advice from results: what helps around a budget, within a cost; nothing outside what was measured."""

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from studykit.cli import app
from studykit.errors import InputError
from studykit.findings._advice import advise
from studykit.findings._answers import Answer, find_answers
from studykit.findings._evidence import collect

LEXICON = Path(__file__).parents[2] / "results" / "lexicon"
BUDGETS = (500, 2000, 8000)
GAINS = {"kd": {500: 6.0, 2000: 4.0, 8000: 0.0}, "gkd": {500: 8.0, 2000: 5.0, 8000: 3.0}}
SECONDS = {"sft": 10.0, "kd": 11.0, "gkd": 40.0}
TEACHERS = {500: 0.6, 2000: 0.6, 8000: 0.6}


def study(gains=GAINS, student="small", name="s", noise=0.1) -> pd.DataFrame:
    """Return runs whose paired differences are known: baseline 40 points, noise by seed that pairs do not share."""
    rows = []
    for budget in BUDGETS:
        for seed in range(5):
            for method in ("sft", *gains):
                gain = gains.get(method, {}).get(budget, 0.0) + (method != "sft") * noise * (seed - 2)
                rows.append(
                    {
                        "study": name,
                        "ablation": "methods",
                        "run_id": f"{student}{method}{budget}{seed}",
                        "eval_id": "first",
                        "method": method,
                        "student": student,
                        "teacher": None if method == "sft" else "big",
                        "source": "words",
                        "budget_examples": budget,
                        "seed": seed,
                        "status": "done",
                        "steps": 100,
                        "exact_match": (40.0 + gain) / 100,
                        "nll": 1.0,
                        "teacher_exact_match": None if method == "sft" else TEACHERS[budget],
                        "train_s": SECONDS.get(method, 20.0),
                    }
                )
    return pd.DataFrame(rows)


def answers(*frames: pd.DataFrame, score: str | None = None) -> list[tuple[str, Answer]]:
    """Return the findings on made-up studies."""
    return [
        ("".join(frame["study"].unique()), answer)
        for frame in frames
        for answer in find_answers(frame, [], Path("none"), score=score)
    ]


def test_the_arm_that_surely_gains_most_at_both_budgets_around_is_advised():
    found = advise(answers(study()), budget=1000)
    assert found.arm == "gkd"
    assert [(one.arm, one.budget) for one in found.evidence[:2]] == [("gkd", 500), ("gkd", 2000)]
    assert "With 1,000 examples: gkd from big, as in s with small: +8.0" in found.sentence
    assert "4.0 times the seconds" in found.sentence


def test_a_measured_budget_needs_no_neighbours():
    assert {one.budget for one in advise(answers(study()), budget=2000).evidence} == {2000}


def test_a_limit_on_the_cost_leaves_the_cheaper_arm():
    found = advise(answers(study()), budget=1000, max_cost=2)
    assert found.arm == "kd"
    assert "within 2 times the seconds of sft" in found.sentence
    assert advise(answers(study()), budget=1000, max_cost=1.05).arm == "sft"


def test_an_arm_that_helps_at_one_budget_only_is_not_advised_between_them():
    found = advise(answers(study({"kd": GAINS["kd"]})), budget=4000)
    assert found.arm == "sft"
    assert "No arm helps at all measured budgets around it (comparisons: 1 helps, 1 tie)." in found.sentence
    assert "Nearest comes kd from big: +4.0 [+3.8, +4.2] points at 2,000 (n = 5 seeds, 100" in found.sentence
    assert found.sentence.endswith(", 1.1 times the seconds): tie (no difference larger than 1.0 points).")


@pytest.mark.parametrize("budget", [499, 8001])
def test_nothing_is_said_outside_the_measured_budgets(budget):
    with pytest.raises(InputError, match=f"budget {budget:,} is outside the measured 500 to 8,000 examples"):
        advise(answers(study()), budget=budget)


def test_nothing_is_said_outside_the_measured_gaps():
    assert advise(answers(study()), budget=500, gap=20).arm == "gkd"
    with pytest.raises(InputError, match=r"a gap of 30 points is outside the measured 20.0 to 20.0 points"):
        advise(answers(study()), budget=500, gap=30)


def test_a_gap_between_two_teachers_counts_those_next_to_it():
    frame = study({"kd": GAINS["kd"], "gkd": GAINS["gkd"], "taid": GAINS["kd"]})
    for method, score in {"kd": 0.5, "gkd": 0.7, "taid": 0.9}.items():
        frame.loc[frame["method"] == method, "teacher_exact_match"] = score
    assert {one.arm for one in advise(answers(frame), budget=500, gap=20).evidence} == {"kd", "gkd"}
    assert {one.arm for one in advise(answers(frame), budget=500, gap=30).evidence} == {"gkd"}


def test_several_students_are_not_mixed():
    frames = [study(), study(student="large", name="t")]
    with pytest.raises(InputError, match="several students, large, small: name one with --student"):
        advise(answers(*frames), budget=500)
    assert {one.study for one in advise(answers(*frames), budget=500, student="large").evidence} == {"t"}


def test_the_student_of_which_most_was_measured_is_meant_and_the_others_are_named():
    frames = [study(), study({"kd": GAINS["kd"]}, student="large", name="t")]
    found = advise(answers(*frames), budget=500)
    assert {one.student for one in found.evidence} == {"small"}
    assert found.unknown[-1] == "Of large less was measured: --student names one."
    assert "less was measured" not in " ".join(advise(answers(*frames), budget=500, student="large").unknown)
    with pytest.raises(InputError, match="no finished runs of student other"):
        advise(answers(*frames), budget=500, student="other")


def test_another_evaluation_of_the_same_runs_changes_nothing():
    again = study().assign(eval_id="second", evaluation_items=10, exact_match=0.5)
    both = pd.concat([study().assign(evaluation_items=1000), again], ignore_index=True)
    assert advise(answers(both), budget=500).sentence == advise(answers(study()), budget=500).sentence


def test_a_study_with_two_kinds_of_fine_tuning_has_no_plain_baseline():
    faster = study({}).assign(learning_rate=0.1)
    both = pd.concat([study().assign(learning_rate=0.01), faster.assign(run_id="f" + faster["run_id"])])
    assert collect(answers(both.reset_index(drop=True)), score="exact_match") == []


def test_a_metric_whose_smaller_values_are_better_counts_the_other_way():
    frame = study()
    frame["nll"] = 2.0 - frame["exact_match"]
    found = advise(answers(frame, score="nll"), budget=500, score="nll")
    assert found.arm == "gkd"
    assert all(one.at_least > 0 for one in found.evidence)


def test_what_is_not_known_is_said():
    found = advise(answers(study(noise=30.0)), budget=500)
    assert found.arm == "sft"
    assert found.unknown[0].startswith("All of it is about small on the data of s")
    assert "One gap between teacher and student was measured: 20.0 points." in found.unknown
    assert "Of 2 arms, 2 have too few seeds to tell at one of these budgets." in found.unknown


def test_without_runs_there_is_no_evidence():
    assert collect(answers(study().iloc[:0]), score="exact_match") == []
    with pytest.raises(InputError, match="no finished runs of two arms"):
        advise(answers(study().iloc[:0]), budget=500)


def test_the_command_shows_the_evidence_and_refuses_what_is_outside_of_it():
    results = ["--results", str(LEXICON)]
    shown = CliRunner().invoke(app, ["advise", "--budget", "1000", "--rows", "1", *results])
    assert shown.exit_code == 0
    assert shown.output.startswith("With 1,000 examples: ")
    assert "more rows: --rows)" in shown.output
    assert "other students, tasks and data may answer differently" in shown.output
    outside = CliRunner().invoke(app, ["advise", "--budget", "10", *results])
    assert isinstance(outside.exception, InputError)
    assert "outside the measured" in str(outside.exception)
