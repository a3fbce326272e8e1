"""The comparison of methods on numbers that are known beforehand."""

import json

import pandas as pd
import pytest

from studykit.findings import FINDINGS, labels
from studykit.findings.methods import methods

SCORES = {  # method, one option, budget: points by seed
    ("sft", None, 500): [10.0, 12.0, 14.0],
    ("kd", None, 500): [15.0, 16.0, 20.0],
    ("gkd", ("method_options.lmbda", 0.5), 500): [9.0, 11.0, 14.5],
    ("taid", ("method_options.schedule", "adaptive"), 500): [20.0, 22.0, 24.0],
    ("taid", ("method_options.schedule", "fixed"), 500): [2.0, 4.1, 6.0],
    ("sft", None, 9000): [40.0, 41.0],
    ("kd", None, 9000): [41.0, 40.0],
}


@pytest.fixture
def frame():
    rows = [
        {
            "run_id": f"{method}{option}{budget}{seed}",
            "status": "done",
            "method": method,
            "learning_rate": 1.0,
            **(dict([option]) if option else {}),
            "student": "small",
            "budget_examples": budget,
            "seed": seed,
            "exact_match": points / 100,
            "nll": 2 - points / 100,
            "train_s": 10.0 + seed,
            "generated_tokens": 100.0 if method == "gkd" else None,
            "teacher_tokens": None if method == "sft" else 50.0,
            "scored_tokens": 7.0 if method == "gkd" else None,
        }
        for (method, option, budget), scores in SCORES.items()
        for seed, points in enumerate(scores)
    ]
    rows.append(rows[0] | {"run_id": "x", "seed": 9, "status": "failed", "exact_match": 0.99})
    return pd.DataFrame(rows).astype({"budget_examples": "Int64", "seed": "Int64"})


def test_variants_of_a_method_are_named_by_what_differs(frame):
    named = labels(frame)
    assert set(named) == {"sft", "kd", "gkd", "taid (schedule=adaptive)", "taid (schedule=fixed)"}


def test_the_best_method_by_a_metric_of_which_less_is_better(frame):
    text = methods(frame, score="nll").sentence
    assert text.startswith("At 500 examples taid (schedule=adaptive) is best, -0.100 [-0.100, -0.100] nats per token")
    assert "from sft (n = 3 seeds): helps; of 4 methods" in text
    worse = methods(frame[frame["method"].isin(["sft", "gkd"])], score="nll").sentence
    assert worse.startswith("At 500 examples no method is below sft: gkd comes nearest, +0.005 [")


def test_best_first_at_every_budget_with_paired_differences_and_cost(frame):
    table = methods(frame).table
    low = table[table["budget"] == 500]
    assert low["method"].tolist() == ["taid (schedule=adaptive)", "kd", "sft", "gkd", "taid (schedule=fixed)"]
    assert low["score"].tolist() == [22.0, 17.0, 12.0, 11.5, 4.0]
    by_name = low.set_index("method")
    # differences 5, 4 and 6: mean 5, s = 1, t(2; 0.975) / √3 = 2.484
    assert by_name.loc["kd", "score - sft"] == "+5.0 [+2.5, +7.5]"
    assert by_name.loc["sft", "score - sft"] == ""
    assert by_name.loc["kd", "NLL - sft"] == "-0.050 [-0.075, -0.025]"
    cost = by_name[["generated", "teacher reads", "seconds"]].to_dict("index")
    assert list(cost["gkd"].values()) == [100, 57, 11]
    assert list(cost["sft"].values()) == [0, 0, 11]
    assert by_name["seeds"].tolist() == [3] * 5


def test_the_sentence_counts_verdicts_and_says_how_many_contrasts_share_the_level(frame):
    finding = methods(frame)
    assert "At 500 examples taid (schedule=adaptive) is best, +10.0" in finding.sentence
    # at seeds 0 to 2 taid is 10 above each time, kd 5, 4 and 6, gkd -1, -1 and 0.5, fixed -8, -7.9 and -8
    assert "(n = 3 seeds): helps; of 4 methods 2 help, 1 hurts, 1 cannot tell." in finding.sentence
    assert "At 9,000 examples kd is best, +0.0" in finding.sentence
    assert finding.sentence.endswith("Holm's correction is over all 5 contrasts.")
    words = [found.word for found in finding.verdicts.values()]
    assert words == ["helps", "helps", "cannot tell", "hurts", "cannot tell"]
    assert next(iter(finding.verdicts)) == "taid (schedule=adaptive) - sft at 500 examples"


def test_more_contrasts_make_a_verdict_harder(frame):
    few = frame[frame["method"].isin(["sft", "kd"]) & (frame["budget_examples"] == 500)]
    assert methods(few).verdicts["kd - sft at 500 examples"].word == "helps"
    assert methods(few).verdicts["kd - sft at 500 examples"].p_value == pytest.approx(
        0.0130724, abs=1e-6
    )  # t(2) = 8.66
    more = [frame.assign(method="gkd", **{"method_options.lmbda": x / 9}) for x in range(6)]
    many = methods(pd.concat([frame, *(f[f["budget_examples"] == 500].iloc[6:9] for f in more)]))
    found = many.verdicts["kd - sft at 500 examples"]
    assert (found.word, found.seeds_needed) == ("cannot tell", 4)
    assert methods(few, tie=8.0).verdicts["kd - sft at 500 examples"].word == "tie"


def test_where_the_baseline_is_best_no_method_is_called_best(frame):
    worse = frame[frame["method"].isin(["sft", "gkd"]) & (frame["budget_examples"] == 500)]
    sentence = methods(worse).sentence
    assert sentence.startswith("At 500 examples no method is above sft: gkd comes nearest, -0.5")
    assert "is best" not in sentence


def test_one_seed_has_no_interval_and_nothing_is_claimed_of_it(frame):
    finding = methods(frame[(frame["seed"] == 0) & (frame["budget_examples"] == 500)])
    assert finding.table.set_index("method").loc["kd", "score - sft"] == "+5.0"
    assert {str(found) for found in finding.verdicts.values()} == {"cannot tell (one seed gives no interval)"}


def test_without_a_baseline_or_without_runs_it_says_so(frame):
    assert "No budget has both sft" in methods(frame[frame["method"] != "sft"]).sentence
    assert "No budget has both sft" in methods(frame.iloc[:0]).sentence


def test_mixed_students_and_runs_that_are_there_twice_are_refused(frame):
    with pytest.raises(ValueError, match="one student"):
        methods(pd.concat([frame, frame.assign(student="large")]))
    with pytest.raises(ValueError, match="twice"):
        methods(pd.concat([frame, frame]))


def test_numbers_are_plain_json_and_the_finding_is_found_by_name(frame):
    finding = FINDINGS.member("methods")(frame)
    assert json.loads(json.dumps(finding.numbers, allow_nan=False))["lines"][0]["score"]["mean"] == pytest.approx(22.0)


def test_a_score_that_is_the_same_in_every_run_gives_way_to_nll(frame):
    finding = methods(frame.assign(exact_match=0.0))
    assert finding.sentence.startswith("exact match is 0.0 points in every run, so the answer is about NLL. At 500")
    assert finding.numbers["score"] == "nll"
    assert "score" not in finding.table
    assert finding.sentence.endswith(methods(frame, score="nll").sentence)


def test_where_only_the_baseline_was_run_its_best_setting_is_named_with_its_runs(frame):
    alone = frame[(frame["method"] == "sft") & (frame["budget_examples"] == 9000)]
    slower = alone.assign(learning_rate=0.5, exact_match=0.3, run_id=[f"slow{seed}" for seed in alone["seed"]])
    sentence = methods(pd.concat([slower, alone])).sentence
    assert sentence.startswith("Only sft has finished, so nothing is compared. At 9,000 examples the best exact match ")
    assert sentence.endswith(" points, of sft (learning_rate=1) (runs sftNone90000, sftNone90001).")
    one = methods(alone[alone["seed"] == 1]).sentence
    assert one.endswith("the best exact match is 41.0 points, of sft (run sftNone90001).")
    by_nll = methods(pd.concat([slower.assign(nll=0.2), alone]), score="nll").sentence
    assert "the best NLL is 0.200" in by_nll
