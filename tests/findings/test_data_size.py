"""The data-size finding on numbers that are known beforehand."""

import json

import pandas as pd
import pytest

from studykit.findings import format_interval
from studykit.findings.data_size import data_size
from studykit.statistics import Interval


def runs(scores, **changes):
    """Make a table of runs from (method, budget, seed) to exact match; NLL follows from it."""
    rows = [
        {
            "run_id": f"{number:012x}",
            "status": "done",
            "method": method,
            "student": "lexicon/base-small",
            "teacher": None if method == "sft" else "lexicon/teacher-a",
            "budget_examples": budget,
            "seed": seed,
            "exact_match": score,
            "nll": 2.0 - score,
        }
        | changes
        for number, ((method, budget, seed), score) in enumerate(scores.items())
    ]
    columns = ["status", "method", "student", "teacher", "budget_examples", "seed", "exact_match", "nll"]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    return frame.astype({"budget_examples": "Int64", "seed": "Int64"})


def grid(differences, baseline=0.3):
    """Make both arms from differences in points: budget -> one per seed."""
    scores = {}
    for budget, by_seed in differences.items():
        for seed, difference in enumerate(by_seed):
            scores["sft", budget, seed] = baseline + seed / 100
            scores["kd", budget, seed] = baseline + seed / 100 + difference / 100
    return scores


THREE = {500: [3.0, 4.0, 5.0], 5_000: [1.0, 2.0, 3.0], 50_000: [-1.0, -2.0, -3.0]}
HALF = 4.302653 / 3**0.5  # t(2; 0.975) * s / √3 with s = 1


def test_the_numbers_of_a_full_grid():
    finding = data_size(runs(grid(THREE)))
    first = finding.numbers["budgets"][0]
    assert first["budget_examples"] == 500
    difference = first["score"]["difference"]
    assert (difference["mean"], difference["n"], difference["p_value"]) == (pytest.approx(4.0), 3, 0.25)
    assert (difference["low"], difference["high"]) == pytest.approx((4 - HALF, 4 + HALF), abs=1e-5)
    assert first["score"]["by_seed"] == pytest.approx({"0": 3.0, "1": 4.0, "2": 5.0})
    assert first["score"]["sft"]["mean"] == pytest.approx(31.0)
    assert first["score"]["kd"]["mean"] == pytest.approx(35.0)
    assert first["nll"]["difference"]["mean"] == pytest.approx(-0.04)
    assert json.loads(json.dumps(finding.numbers, allow_nan=False)) == finding.numbers


def test_the_table_of_a_full_grid():
    table = data_size(runs(grid(THREE))).table
    assert list(table.columns) == [
        "budget",
        "seeds",
        "sft",
        "kd",
        "kd - sft",
        "verdict",
        "detectable",
        "sft NLL",
        "kd NLL",
        "NLL kd - sft",
    ]
    assert table.iloc[0].tolist() == [
        500, 3, 31.0, 35.0, "+4.0 [+1.5, +6.5]", "cannot tell (needs about 4 seeds)", "5.7",
        1.69, 1.65, "-0.040 [-0.065, -0.015]",
    ]  # fmt: skip
    assert table["budget"].tolist() == [500, 5_000, 50_000]
    assert table["detectable"].tolist() == ["5.7"] * 3  # of s = 1 at 5% / 3: none of the three is claimed


def test_the_sentence_of_a_full_grid_says_where_the_advantage_ends():
    sure = {500: [3.9, 4.0, 4.1], 1_000: [3.9, 4.0, 4.1], 5_000: [0.9, 1.0, 1.1], 50_000: [-1.9, -2.0, -2.1]}
    finding = data_size(runs(grid(sure)))
    assert finding.sentence.startswith(
        "KD - SFT: helps at 500 examples (+4.0 [+3.8, +4.2] points, n = 3 seeds); "
        "hurts at 50,000 examples (-2.0 [-2.2, -1.8] points, n = 3 seeds). "
        "Between them: helps at 1,000 and 5,000. Its advantage ends near 10,800 ["
    )
    end = finding.numbers["advantage_ends"]
    assert end["budget"] == pytest.approx(5_000 * 10 ** (1 / 3))  # from 1 to -2 over a decade
    assert end["low"] < end["budget"] < end["high"]
    assert (end["n"], end["crossing"]) == (3, 3)
    assert "examples (3 of 3 seeds cross zero)." in finding.sentence


@pytest.mark.parametrize(
    ("differences", "ending"),
    [
        ({10: [3, 3.1, 3.2], 100: [0.5, 1, 3]}, "does not fall to zero; the advantage may end from"),
        ({10: [3, 4], 100: [1, 2]}, "No budget has an advantage that is sure, so none can be said to end."),
        ({10: [3.0, 3.1, 3.2], 100: [2.0, 2.1, 2.2]}, "no end of the advantage within these budgets."),
        ({10: [-3, -4], 100: [-1, -2]}, "KD has no advantage at any of these budgets."),
        ({10: [-3, -3.1, -3.2], 100: [2, 2.1, 2.2]}, "but never from above to below zero: no end of an advantage."),
        ({10: [3], 100: [-3]}, "No budget has an advantage that is sure, so none can be said to end."),
        ({10: [3, 3.001], 100: [-3, -3.001]}, "Its advantage ends near 32 [32, 32] examples"),
        ({10: [3, 4]}, "cannot tell (needs about 3 seeds) at 10 examples (+3.5 [-2.9, +9.9] points, n = 2 seeds)."),
        ({10: [3]}, "KD - SFT: cannot tell (one seed gives no interval) at 10 examples (+3.0 points, n = 1 seed)."),
        ({10: [0.1, 0.2, 0.3]}, "tie (no difference larger than 1.0 points) at 10 examples (+0.2 [-0.0, +0.4] points"),
    ],
)
def test_the_sentence_says_what_can_be_said(differences, ending):
    assert ending in data_size(runs(grid(differences))).sentence


def test_where_most_budgets_are_open_the_sentence_says_what_would_be_missed():
    said = "Differences below about 5.7 points would often be missed (power below 80%)."
    assert said in data_size(runs(grid(THREE))).sentence
    sure = {500: [3.9, 4.0, 4.1], 1_000: [3.9, 4.0, 4.1], 5_000: [0.0, 1.0, 2.0]}
    assert "would often be missed" not in data_size(runs(grid(sure))).sentence
    assert "would often be missed" not in data_size(runs(grid({10: [3], 100: [1]}))).sentence  # one seed: no interval


def test_the_verdicts_are_those_of_the_table_the_numbers_and_the_terminal():
    finding = data_size(runs(grid({10: [3.0, 3.1, 3.2], 100: [0.1, 0.2, 0.3]})))
    assert list(finding.verdicts) == ["kd - sft at 10 examples", "kd - sft at 100 examples"]
    phrases = [str(found) for found in finding.verdicts.values()]
    assert phrases == ["helps", "tie (no difference larger than 1.0 points)"]
    assert finding.table["verdict"].tolist() == phrases
    assert [line["verdict"]["phrase"] for line in finding.numbers["budgets"]] == phrases


def test_the_margin_of_a_tie_is_an_option_in_the_unit_of_the_metric():
    frame = runs(grid({10: [3.0, 3.1, 3.2]}))
    assert str(data_size(frame, tie=5.0).verdicts["kd - sft at 10 examples"]).startswith("tie (no difference larger")
    same = frame.assign(exact_match=0.5)  # the answer is about NLL, so that a margin in points does not count
    assert data_size(same, tie=5.0).verdicts["kd - sft at 10 examples"].tie == 0.01


def test_the_noise_floor_is_that_of_the_baseline_over_seeds():
    noise = data_size(runs(grid(THREE))).numbers["noise"]
    sft = [100 * 0.3 + seed for seed in range(3)]
    assert noise["arm"] == pytest.approx(pd.Series(sft).std())
    assert noise["rerun"] == pytest.approx(pd.Series(sft).std() * 2**0.5)
    assert noise["difference"] == pytest.approx(1.0)
    assert "Noise floor: two seeds of sft differ by 1.4 points at 500 examples" in data_size(runs(grid(THREE))).sentence
    assert "Noise" not in data_size(runs(grid({10: [3.0]}))).sentence


def test_fits_are_compared_on_the_largest_budget():
    curve = {budget: [0.0, 1.0] for budget in (500, 1_500, 5_000, 15_000, 40_000)}
    scores = {(m, n, s): 0.5 - 9 * n**-0.5 + s / 1000 for (m, n, s) in grid(curve)}
    finding = data_size(runs(scores))
    assert finding.numbers["scaling"]["sft"][0]["form"] == "a + b n^-c"
    assert "Fitted below 40,000 examples, a + b n^-c misses the mean there by" in finding.sentence
    assert "Fitted below" not in data_size(runs(grid(THREE))).sentence  # three budgets leave none out


def test_one_seed_has_no_interval():
    finding = data_size(runs(grid({10: [3.0], 100: [1.0]})))
    assert finding.table["kd - sft"].tolist() == ["+3.0", "+1.0"]
    assert finding.numbers["budgets"][0]["score"]["difference"]["low"] is None
    assert finding.sentence.count("cannot tell (one seed gives no interval)") == 2


def test_nothing_yet_is_said_to_be_nothing():
    for scores in ({}, {("sft", 10, 0): 0.3}, {("sft", 10, 0): 0.3, ("kd", 10, 1): 0.4}):
        finding = data_size(runs(scores))
        assert finding.sentence == "No budget has both sft and kd finished yet."
        assert finding.table.empty
        assert finding.numbers["advantage_ends"] is None
        assert finding.verdicts == {}


def test_a_partial_grid_uses_the_pairs_it_has():
    scores = grid(THREE)
    del scores["kd", 500, 2], scores["sft", 5_000, 0], scores["kd", 50_000, 0]
    scores["kd", 200_000, 0] = 0.9
    finding = data_size(runs(scores))
    assert finding.table["seeds"].tolist() == [2, 2, 2]
    assert finding.numbers["budgets"][0]["score"]["difference"]["mean"] == pytest.approx(3.5)
    assert finding.numbers["budgets"][0]["score"]["sft"]["n"] == 2  # the arm's own mean is over the pairs too


def test_only_finished_runs_of_the_two_arms_count():
    frame = runs(grid({10: [3.0, 4.0]}) | {("gkd", 10, 0): 0.9, ("sft > kd", 10, 0): 0.9})
    frame.loc[(frame["method"] == "kd") & (frame["seed"] == 1), "status"] = "failed"
    assert data_size(frame).table["seeds"].tolist() == [1]
    other = data_size(frame, arm="gkd")
    assert other.table["gkd - sft"].tolist() == ["+60.0"]
    assert other.sentence.startswith("GKD - SFT: cannot tell (one seed gives no interval) at 10 examples (+60.0 points")


def test_a_metric_that_was_not_measured_is_left_out():
    frame = runs(grid({10: [3.0, 4.0]}))
    table = data_size(frame.drop(columns="nll")).table
    assert not any("NLL" in str(column) for column in table)
    frame.loc[frame["seed"] == 0, "nll"] = None
    finding = data_size(frame)
    assert finding.numbers["budgets"][0]["nll"]["difference"]["n"] == 1
    assert data_size(frame.drop(columns="exact_match")).table.empty


def test_a_lower_score_may_be_the_better_one():
    finding = data_size(runs(grid(THREE)), score="nll")
    assert "at 500 examples (-0.040 [-0.065, -0.015] nats per token, n = 3 seeds)" in finding.sentence
    assert finding.numbers["advantage_ends"] == pytest.approx(data_size(runs(grid(THREE))).numbers["advantage_ends"])
    frame = runs(grid({10: [3.0, 3.1, 3.2], 100: [2.0, 2.1, 2.2]}))
    finding = data_size(frame, score="nll")
    assert {found.word for found in finding.verdicts.values()} == {"helps"}
    assert "is below zero at every budget: no end of the advantage within these budgets." in finding.sentence


@pytest.mark.parametrize("column", ["student", "teacher"])
def test_mixed_students_or_teachers_are_refused_unless_one_is_named(column):
    one, two = runs(grid({10: [3.0, 4.0]})), runs(grid({10: [7.0, 8.0]}))
    two.loc[two["method"] == "kd", column] = "lexicon/another"
    if column == "student":
        two[column] = "lexicon/another"
    mixed = pd.concat([one, two] if column == "student" else [one, two[two["method"] == "kd"]], ignore_index=True)
    with pytest.raises(ValueError, match=rf"compares one {column}, the table holds lexicon/\S+, lexicon/\S+: name one"):
        data_size(mixed)
    for name, start in ((one[column].dropna().iloc[-1], "+3.5"), ("lexicon/another", "+7.5")):
        found = data_size(mixed, student=name) if column == "student" else data_size(mixed, teacher=name)
        assert found.table["kd - sft"].tolist()[0].startswith(start)


def test_an_interval_is_shown_with_sign_and_digits():
    assert format_interval(Interval(1.25, 0.5, 2.0, 3), 2, sign=True) == "+1.25 [+0.50, +2.00]"
    assert format_interval(Interval(-1.0, -2.0, None, 1)) == "-1.0"


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_a_score_that_is_the_same_in_every_run_gives_way_to_nll(level):
    frame = runs(grid(THREE)).assign(exact_match=level)
    finding = data_size(frame)
    assert finding.sentence.startswith(
        f"exact match is {100 * level:.1f} points in every run, so the answer is about NLL. KD - SFT: "
    )
    assert finding.numbers["score"] == "nll"
    assert list(finding.table) == ["budget", "seeds", "sft NLL", "kd NLL", "NLL kd - sft", "verdict", "detectable"]
    assert [finding.digits[name] for name in ("sft NLL", "kd NLL")] == [3, 3]
    assert data_size(frame.drop(columns="nll")).numbers["score"] == "exact_match"
    assert data_size(frame.assign(nll=1.0)).numbers["score"] == "exact_match"  # nothing tells these runs apart
    assert data_size(runs(grid(THREE))).numbers["score"] == "exact_match"
