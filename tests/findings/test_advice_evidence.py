"""What advice rests on: verdicts of findings, each comparison once, the one with most seeds, and like with like."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from contrast_rows import frame_of, runs
from typer.testing import CliRunner

from studykit import results
from studykit.cli import app
from studykit.errors import InputError
from studykit.findings._advice import advise
from studykit.findings._answers import Answer, find_answers
from studykit.findings._evidence import collect
from studykit.findings._report import Report, Section

LEXICON = Path(__file__).parents[2] / "results" / "lexicon"
GREEDY = {"source_options.teacher": "a"}


def answers(**studies: pd.DataFrame) -> list[tuple[str, Answer]]:
    """Return the findings on made-up studies, each about one question."""
    return [(study, one) for study, frame in studies.items() for one in find_answers(frame, [], Path("none"))]


def of(question: str, *parts: Any) -> pd.DataFrame:
    frame = frame_of(*parts).assign(study="s", ablation=question, eval_id="e")
    return frame.assign(teacher_exact_match=frame["teacher"].map({"strong": 0.5, "weak": 0.3}))


def points(gain: float, seeds: int, noise: float = 0.1) -> list[float]:
    """Return scores of a baseline at 40 points, and a gain that differs by seed."""
    return [40 + seed % 3 + gain + (noise * (seed % 2 - 0.5) if gain else 0) for seed in range(seeds)]


def two_arms(question: str, seeds: int = 3, gain: float = 5.0, teacher: str = "strong", **columns: Any):
    return of(
        question,
        runs("sft", points(0, seeds), **columns),
        runs("kd", points(gain, seeds), teacher=teacher, **columns),
    )


def teachers(seeds: int = 5, **columns: Any) -> pd.DataFrame:
    """Return runs of two teachers that gain 5.0 and 5.1 points, with noise that does not tell them apart."""
    weak, strong = ({"teacher": name, "inputs": name} | columns for name in ("weak", "strong"))
    baseline = runs("sft", points(0, seeds), **columns)
    return of(
        "teacher_strength",
        baseline,
        runs("kd", points(5.0, seeds), **weak),
        runs("kd", points(5.1, seeds, 0.2), **strong),
    )


def ways() -> pd.DataFrame:
    """Return runs on 100 human and 900 synthetic examples, in turn or alone."""
    stages = {"stage_1.examples": 900, "stage_2.examples": 100, "stage_1.source": "synthetic"}
    stages |= {"stage_2.source": "jsonl", "stage_1.source_options.teacher": "a"}
    return of(
        "two_stage",
        runs("sft", points(0, 5), budget=100, source="jsonl"),
        runs("sft", points(2.0, 5), budget=900, source="synthetic", **GREEDY),
        runs("sft > sft", points(6.0, 5), budget=1000, **stages),
    )


@pytest.mark.parametrize("frame", [two_arms("data_size"), teachers(), ways()], ids=["arms", "teachers", "ways"])
def test_every_verdict_is_that_of_the_finding(frame):
    found = answers(s=frame)
    ((_, answer),) = found
    evidence = collect(found, score="exact_match")
    assert evidence
    for one in evidence:
        assert one.verdict is answer.finding.verdicts[one.contrast]
    shown = advise(found, budget=evidence[0].budget).table
    known = {(str(one), one.difference.n) for one in answer.finding.verdicts.values()}
    assert set(zip(shown["verdict"], shown["seeds"], strict=True)) <= known


def test_verdicts_and_intervals_of_a_stored_study_are_those_of_its_finding():
    found = find_answers(results.load(LEXICON), results.cells(LEXICON), LEXICON)
    (sizes,) = (answer for answer in found if answer.name == "data_size")
    lines = sizes.finding.table.set_index("budget")
    for one in collect([("lexicon", sizes)], score="exact_match"):
        shown = advise([("lexicon", sizes)], budget=one.budget).table.iloc[0]
        assert (shown["gain"], shown["verdict"]) == tuple(lines.loc[one.budget, ["kd - sft", "verdict"]])


def test_a_tuned_study_counts_and_the_one_with_most_seeds_is_taken():
    tuned = two_arms("data_size", 8).assign(tuning="9a5c")
    beside = two_arms("student_size", 8).assign(tuning="f388", run_id=lambda rows: "t" + rows["run_id"])
    found = advise(answers(few=two_arms("data_size", 3), many=pd.concat([tuned, beside])), budget=500)
    assert {(one.study, one.verdict.difference.n) for one in found.evidence} == {("many", 8)}
    assert "as in many" in found.sentence


def test_two_stages_are_advised_with_the_synthetic_data_that_they_need():
    found = advise(answers(stages=ways()), budget=100)
    assert found.arm == "synthetic > human"
    assert "synthetic > human with 900 synthetic examples written by a, greedy, as in stages" in found.sentence
    assert "without those in which a teacher writes" in " ".join(found.unknown)
    assert {one.arm for one in found.evidence} == {"synthetic > human", "synthetic"}


def test_the_same_runs_in_several_studies_count_once_under_the_strictest_correction():
    sizes, again = two_arms("data_size", 5), two_arms("student_size", 5)
    evidence = collect(answers(one=sizes, two=again, three=sizes), score="exact_match")
    assert [(one.arm, one.teacher, one.budget) for one in evidence] == [("kd", "strong", 500)]
    same = runs("sft", points(0, 5)), runs("kd", points(5.0, 5), teacher="strong")
    family = of("methods", *same, *(runs(name, points(1.0, 5, 9.0)) for name in "xyz"))
    both = collect(answers(one=sizes, two=family), score="exact_match")
    assert [one.study for one in both if one.arm == "kd"] == ["two"]


def test_the_steps_are_said_and_a_cheaper_arm_that_is_not_told_apart():
    found = advise(answers(teachers=teachers()), budget=500)
    assert "300 optimizer steps" in found.sentence
    assert "At 500 it is not told apart from the cheaper weak (+0.1 [" in found.sentence


def test_longer_training_does_not_come_first_for_its_gain():
    longer = two_arms("data_size", 5, 9.0, "other", steps=900)
    found = advise(answers(usual=two_arms("data_size", 5), longer=longer), budget=500)
    assert "as in usual" in found.sentence
    assert "300 optimizer steps" in found.sentence
    assert found.table["steps"].tolist() == ["300", "900"]


def test_of_equally_many_seeds_a_tuned_study_comes_first():
    usual, tuned = two_arms("data_size", 5, 9.0), two_arms("data_size", 5, 4.0, trials=5)
    evidence = collect(answers(usual=usual, tuned=tuned), score="exact_match")
    assert [(one.study, one.is_tuned) for one in evidence] == [("tuned", True)]
    half = tuned.assign(trials=tuned["trials"].where(tuned["method"] == "kd"))
    [left] = collect(answers(usual=usual, half=half), score="exact_match")
    assert (left.study, left.is_tuned) == ("usual", False)


def test_the_arm_with_most_seeds_comes_before_larger_gains_and_it_is_said_of_how_many_it_is_the_best():
    many = two_arms("data_size", 8, 3.0)
    few = of(
        "methods",
        runs("sft", points(0, 3)),
        *(runs(f"m{number}", points(7.0 + number / 10, 3, 0.01), teacher="strong") for number in range(4)),
        runs("large", points(12.0, 3, 9.0), teacher="strong"),
    )
    found = advise(answers(many=many, few=few), budget=500)
    assert found.arm == "kd"
    assert "Of 6 arms measured there 5 help; it has the most seeds." in found.sentence
    assert "With fewer seeds or longer training, m3 from strong is sure of more: at least 7.3 points." in found.sentence
    alone = advise(answers(few=few), budget=500)
    assert alone.arm == "m3"
    assert "of 4 with as many seeds and steps it is sure of the largest gain, likely too large as the largest" in (
        alone.sentence
    )


def test_the_report_gives_the_same_advice_from_the_findings_that_it_has():
    found = answers(teachers=teachers())
    sections = tuple(Section(Path(study), answer) for study, answer in found)
    report = Report(sections, (), pd.DataFrame(), pd.DataFrame(), ())
    assert report.advice(500).splitlines()[0] == advise(found, budget=500).sentence
    assert report.advice(499).startswith("No advice: budget 499 is outside the measured 500 to 500 examples")


def test_an_unknown_metric_is_refused_in_one_line():
    with pytest.raises(InputError, match="unknown metric 'nope'; known: exact_match, nll"):
        advise(answers(s=two_arms("data_size")), budget=500, score="nope")
    refused = CliRunner().invoke(app, ["advise", "--budget", "500", "--metric", "nope", "--results", str(LEXICON)])
    assert isinstance(refused.exception, InputError)
    assert str(refused.exception).startswith("unknown metric 'nope'")
