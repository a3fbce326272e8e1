"""How much of a teacher to keep, on numbers that are known beforehand."""

import json

import pandas as pd
import pytest

from studykit.findings import FINDINGS
from studykit.findings.teacher_cache import teacher_cache

DENSE = [20.0, 22.0, 24.0]
SIGNALS = {  # option of the teacher: exact match in points by seed, bytes
    None: (DENSE, None),
    ("top_k", 2): ([15.0, 18.0, 18.0], 12.0),  # differences -5, -4, -6
    ("top_k", 4): ([21.0, 24.0, 27.0], 20.0),  # 1, 2, 3: t(2; 0.975) / √3 = 2.4841, so [-0.48, 4.48]
    ("top_k", 16): ([30.0, 33.0, 34.0], 68.0),  # 10, 11, 10
    ("samples", 8): ([19.0, 24.0, 23.0], 15.0),  # -1, 2, -1, but in NLL clear of zero
}


def row(method, option, seed, points, size, nll):
    return {
        "run_id": f"{method}{option}{seed}",
        "status": "done",
        "method": method,
        "learning_rate": 1.0,
        "teacher_top_k": option[1] if option and option[0] == "top_k" else None,
        "teacher_samples": option[1] if option and option[0] == "samples" else None,
        "student": "small",
        "budget_examples": 1500,
        "seed": seed,
        "exact_match": points / 100,
        "nll": nll,
        "teacher_tokens": None if method == "sft" else 900.0 if size is None else 3.0,
        "bytes_per_position": size,
        "kept_mass": None if size is None else 0.9,
        "gradient_cosine": None if size is None else 0.5,
        "cache_tokens": None if size is None else 50.0,
    }


def is_dense(frame):
    """Whether no part of the teacher was kept: the live teacher, or none."""
    return frame["teacher_top_k"].isna() & frame["teacher_samples"].isna()


@pytest.fixture
def frame():
    rows = [
        row("kd", option, seed, points, size, 1 - points / 1000 + (0.5 if option and option[0] == "samples" else 0))
        for option, (scores, size) in SIGNALS.items()
        for seed, points in enumerate(scores)
    ]
    rows += [row("sft", None, seed, points, None, 2.0) for seed, points in enumerate([10.0, 12.0, 14.0])]
    rows.append(rows[0] | {"run_id": "x", "seed": 9, "status": "failed", "exact_match": 0.99})
    return pd.DataFrame(rows).astype({"budget_examples": "Int64", "seed": "Int64"})


def test_one_line_per_signal_by_size_with_paired_differences_to_dense(frame):
    table = teacher_cache(frame).table.set_index("signal")
    assert table.index.tolist() == ["sft", "dense", "top_k=2", "samples=8", "top_k=4", "top_k=16"]
    assert table["score"].tolist() == [12.0, 22.0, 17.0, 22.0, 24.0, 32.3]
    assert table["bytes"].tolist() == ["", "", "12.0", "15.0", "20.0", "68.0"]
    assert table["seeds"].tolist() == [3] * 6
    assert table.loc["top_k=4", "score - dense"] == "+2.0 [-0.5, +4.5]"
    assert table.loc["top_k=2", "score - dense"] == "-5.0 [-7.5, -2.5]"
    # a tenth of a hundredth of the points, the other way round
    assert table.loc["top_k=4", "NLL - dense"] == "-0.0020 [-0.0045, +0.0005]"
    assert table.loc["sft", "score - dense"] == "-10.0 [-10.0, -10.0]"
    assert table["NLL - dense"].tolist()[1] == table["score - dense"].tolist()[1] == ""
    assert table["kept mass"].tolist() == ["", "", *["0.9000"] * 4]
    assert table["cosine"].tolist() == ["", "", *["0.5000"] * 4]
    # what fills an empty cache, not what a shared one happened to lack
    assert table["teacher reads"].tolist() == [0, 900, 50, 50, 50, 50]


def tied(frame, **changed):
    """Return the frame with one more signal of 30 bytes that does almost what the dense teacher does."""
    dense = frame[is_dense(frame) & (frame["method"] == "kd") & (frame["status"] == "done")]
    near = {"exact_match": dense["exact_match"] + [0.001, -0.001, 0.0], "nll": dense["nll"] + [0.0001, -0.0001, 0.0]}
    other = dense.assign(**near).assign(teacher_top_k=6, bytes_per_position=30.0)
    return pd.concat([frame, other.assign(**{name: other[name] + by for name, by in changed.items()})])


def test_the_sentence_names_the_smallest_that_ties_in_both_and_those_that_lose(frame):
    sentence = teacher_cache(tied(frame)).sentence
    assert "the smallest signal that ties with the dense teacher in score and NLL is top_k=6, 30.0 bytes" in sentence
    assert "+0.0 [-0.2, +0.2] points, +0.0000 [-0.0002, +0.0002] nats (n = 3 seeds)." in sentence
    assert "Worse in one of them: samples=8." in sentence
    assert "Cannot tell: top_k=2, top_k=4, top_k=16." in sentence
    assert "No teacher at all: -10.0 [-10.0, -10.0] points: hurts, " in sentence


def test_where_none_ties_it_says_so(frame):
    assert "no signal ties with the dense teacher in both score and NLL." in teacher_cache(frame).sentence


@pytest.mark.parametrize("changed", [{"nll": 0.1}, {"nll": -0.1}, {"exact_match": 0.1}, {"exact_match": -0.1}])
def test_a_difference_in_one_metric_is_enough_not_to_tie(frame, changed):
    finding = teacher_cache(tied(frame, **changed))
    assert "no signal ties" in finding.sentence
    (metric, by), *_ = changed.items()
    helps = (by > 0) == (metric == "exact_match")
    assert finding.verdicts[f"top_k=6 - dense at 1,500 examples in {metric}"].word == ("helps" if helps else "hurts")


def test_verdicts_stand_in_the_table_and_in_the_numbers(frame):
    finding = teacher_cache(tied(frame))
    table = finding.table.set_index("signal")
    assert table.loc["top_k=6", "verdict"] == "tie (no difference larger than 1.0 points)"
    assert table.loc["top_k=6", "NLL verdict"] == "tie (no difference larger than 0.010 nats per token)"
    assert [table[column]["dense"] for column in ("verdict", "NLL verdict")] == ["", ""]
    (line,) = [line for line in finding.numbers["lines"] if line["signal"] == "top_k=6"]
    assert [one["word"] for one in line["verdicts"]] == ["tie", "tie"]
    assert (
        teacher_cache(tied(frame), tie=0.1).verdicts["top_k=6 - dense at 1,500 examples in exact_match"].word != "tie"
    )


def test_one_seed_has_no_interval_and_nothing_is_called_enough(frame):
    finding = teacher_cache(frame[frame["seed"] == 0])
    assert "At 1,500 examples one seed gives no interval" in finding.sentence
    assert "smallest" not in finding.sentence
    assert finding.table.set_index("signal").loc["top_k=4", "score - dense"] == "+1.0"


def test_budgets_are_apart(frame):
    both = pd.concat([frame, frame.assign(budget_examples=9000, run_id=frame["run_id"] + "b")])
    both["budget_examples"] = both["budget_examples"].astype("Int64")
    finding = teacher_cache(both)
    assert finding.table["budget"].tolist() == [1500] * 6 + [9000] * 6
    assert finding.sentence.index("At 1,500") < finding.sentence.index("At 9,000")


def test_only_seeds_that_both_have_are_paired(frame):
    fewer = frame[~(is_dense(frame) & (frame["method"] == "kd") & (frame["seed"] == 0))]
    line = next(x for x in teacher_cache(fewer).numbers["lines"] if x["signal"] == "top_k=4")
    assert (line["seeds"], line["score_difference"]["n"]) == (3, 2)
    assert line["score_difference"]["mean"] == pytest.approx(2.5)


@pytest.mark.parametrize("missing", ["dense", "cached", "measured", "all"])
def test_without_a_dense_teacher_or_sizes_it_says_so(frame, missing):
    dense = is_dense(frame) & (frame["method"] == "kd")
    left = {
        "dense": frame[~dense],
        "cached": frame[is_dense(frame)],
        "measured": frame.drop(columns=["bytes_per_position", "kept_mass", "gradient_cosine", "cache_tokens"]),
        "all": frame.iloc[:0],
    }[missing]
    assert teacher_cache(left).sentence == "No budget has both dense and a signal of known size finished yet."


def test_a_table_without_nll_has_no_verdict_and_no_column_of_zeros(frame):
    finding = teacher_cache(frame.drop(columns="nll"))
    assert set(finding.table["NLL"]) == set(finding.table["NLL - dense"]) == {""}
    assert "smallest" not in finding.sentence


def test_mixed_students_and_signals_that_are_there_twice_are_refused(frame):
    with pytest.raises(ValueError, match="one student"):
        teacher_cache(pd.concat([frame, frame.assign(student="large")]))
    same = frame[frame["teacher_top_k"] == 2]
    with pytest.raises(ValueError, match="holds top_k=2 at 1,500 examples twice"):
        teacher_cache(pd.concat([frame, same]))
    with pytest.raises(ValueError, match="holds top_k=2 at 1,500 examples with several values of learning_rate"):
        teacher_cache(pd.concat([frame, same.assign(learning_rate=2.0, seed=same["seed"] + 5)]))


def test_numbers_are_plain_json_and_the_finding_is_found_by_name(frame):
    numbers = FINDINGS.member("teacher_cache")(frame).numbers
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
