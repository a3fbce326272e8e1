"""Human and synthetic data in one or two stages, on numbers that are known beforehand."""

import json
from typing import Any

import pytest
from contrast_rows import frame_of, runs

from studykit.findings import format_interval
from studykit.findings.two_stage import name_data, two_stage, written_answers

TEACHER, GREEDY = "source_options.teacher", {"source_options.teacher": "a"}
MIX = json.dumps(
    [{"data": {"source": "synthetic", "options": {"teacher": "a"}, "budget": {"examples": 900}}, "weight": 0.25}]
)


def staged(first, second, method="sft > sft", points=(18.0, 20.0, 22.0), steps=None, **more: Any):
    sizes = {"human": 100, "synthetic": 900}
    columns = {"budget": 1000, "stage_1.examples": sizes[first], "stage_2.examples": sizes[second]}
    columns |= {"stage_1.source": first.replace("human", "jsonl"), "stage_2.source": second.replace("human", "jsonl")}
    columns |= more if steps is None else more | {"stage_1.steps": steps[0], "stage_2.steps": steps[1]}
    number = 1 if first == "synthetic" else 2
    return runs(method, points, **columns, **{f"stage_{number}.{TEACHER}": "a"})


FRAME = frame_of(
    runs("sft", [10.0, 12.0, 14.0], budget=100, source="jsonl"),
    runs("sft", [15.0, 16.0, 17.0], budget=900, source="synthetic", **GREEDY),  # 5, 4, 3
    runs("sft", [15.0, 18.0, 18.0], budget=1000, source="jsonl", mix=MIX),  # 5, 6, 4
    staged("synthetic", "human"),  # 8, 8, 8
    staged("human", "synthetic", points=(11.0, 14.0, 14.0)),  # 1, 2, 0
    staged("synthetic", "human", "kd > sft", (10.0, 12.0, 14.0)),
)


def test_runs_are_named_by_their_data_and_counted_by_human_annotations():
    named = name_data(FRAME).drop_duplicates("name").set_index("name")
    assert set(named["budget_examples"]) == {100}
    assert named["synthetic_examples"].drop("human").astype(int).to_dict() == {
        "synthetic": 900,
        "25% synthetic": 900,
        "synthetic > human": 900,
        "human > synthetic": 900,
        "synthetic (kd) > human": 900,
    }
    assert named["share"].to_dict()["synthetic > human"] == 0.5
    assert named["share"].to_dict()["25% synthetic"] == 0.25


def test_every_way_is_compared_with_human_annotations_alone():
    table = two_stage(FRAME).table.set_index("data")
    assert table["score - human"].to_dict() == {
        "synthetic > human": "+8.0 [+8.0, +8.0]",
        "25% synthetic": "+5.0 [+2.5, +7.5]",
        "synthetic": "+4.0 [+1.5, +6.5]",
        "human > synthetic": "+1.0 [-1.5, +3.5]",
        "human": "",
        "synthetic (kd) > human": "+0.0 [+0.0, +0.0]",
    }
    assert set(table["written by"]) == {"a, greedy"}
    assert [str(count) for count in set(table["synthetic"])] == ["900"]
    assert set(table["budget"]) == {100}


def test_the_sentence_compares_two_stages_with_the_best_mixture_and_with_the_other_order():
    finding = two_stage(FRAME)
    assert (
        "At 100 examples, 900 synthetic, written by a, greedy, synthetic > human is best, +8.0 [+8.0, +8.0] points, "
        "n = 3 seeds: helps." in finding.sentence
    )
    # 8 - 5, 8 - 6, 8 - 4 and 8 - 1, 8 - 2, 8 - 0
    assert "synthetic > human - the best mixture (25% synthetic): +3.0 [+0.5, +5.5] points" in finding.sentence
    assert "synthetic > human - the other order (human > synthetic): +7.0 [+4.5, +9.5] points" in finding.sentence
    assert json.loads(json.dumps(finding.numbers)) == finding.numbers


def test_stages_of_other_lengths_are_another_way_with_the_same_planned_differences():
    longer = staged("synthetic", "human", points=(20.0, 22.0, 24.0), steps=(9, 1))  # 10, 10, 10
    turned = staged("human", "synthetic", points=(19.0, 20.0, 21.0), steps=(1, 9))
    finding = two_stage(frame_of(FRAME.to_dict("records"), longer + turned))
    scores = finding.table.set_index("data")["score - human"].to_dict()
    assert scores["synthetic > human (steps 9:1)"] == "+10.0 [+10.0, +10.0]"
    assert scores["synthetic > human"] == "+8.0 [+8.0, +8.0]"
    best = [name for name in finding.verdicts if name.startswith("synthetic > human (steps 9:1)") and " - " in name]
    assert [format_interval(finding.verdicts[name].difference) for name in best] == [
        "5.0 [2.5, 7.5]",
        "2.0 [-0.5, 4.5]",
    ]
    assert "; of 1 with other steps or learning rates at best +5.0 [+2.5, +7.5] points" in finding.sentence
    assert "(synthetic > human (steps 9:1)). Differences below about 9.3 points would often" in finding.sentence
    assert "synthetic > human - the other order (human > synthetic): +7.0 [+4.5, +9.5]" in finding.sentence
    planned = [name for name in finding.verdicts if "the best mixture" in name]
    assert [name.partition(" at ")[0] for name in planned] == ["synthetic > human", "synthetic > human (steps 9:1)"]


@pytest.mark.parametrize("tuned", [False, True])
def test_a_slower_last_stage_is_another_way(tuned):
    rates: dict[str, Any] = {"stage_1.learning_rate": 0.004, "stage_2.learning_rate": 0.0004}
    slower = staged("synthetic", "human", points=(20.0, 22.0, 24.0), steps=(9, 1), **rates)  # 10, 10, 10
    slower[1] |= {"stage_1.learning_rate": 0.002, "stage_2.learning_rate": 0.0002} if tuned else {}
    frame = frame_of(FRAME.to_dict("records"), slower)
    if tuned:
        frame = frame.assign(tuning="one", **{"tuned.learning_rate": 0.004})
    finding = two_stage(frame)
    name = "synthetic > human (steps 9:1, learning rates 1:0.1)"
    assert finding.table.set_index("data")["score - human"][name] == "+10.0 [+10.0, +10.0]"
    [planned] = [one for one in finding.verdicts if one.startswith(name) and " - " in one]
    assert planned.endswith("the best mixture (25% synthetic)")
    assert format_interval(finding.verdicts[planned].difference) == "5.0 [2.5, 7.5]"
    assert "of 1 with other steps or learning rates at best +5.0 [+2.5, +7.5] points" in finding.sentence


def test_other_learning_rates_of_one_way_are_never_averaged():
    pairs: list[dict[str, Any]]
    pairs = [{"stage_1.learning_rate": rate, "stage_2.learning_rate": rate / 10} for rate in (0.004, 0.002)]
    slower = [run for one in pairs for run in staged("synthetic", "human", **one)]
    with pytest.raises(ValueError, match="learning_rate"):
        two_stage(frame_of(FRAME.to_dict("records"), slower))


def test_lengths_that_only_a_remainder_tells_apart_are_equal():
    names = set(name_data(frame_of(staged("synthetic", "human", steps=(6, 5))))["name"])
    assert names == {"synthetic > human"}


def test_a_run_on_synthetic_data_alone_belongs_to_the_human_budgets_with_as_many_steps():
    longer = runs("sft", [30.0, 30.0, 30.0], budget=400, source="jsonl") + runs(
        "sft", [1.0, 1.0, 1.0], budget=700, source="jsonl", steps=999
    )
    table = two_stage(frame_of(FRAME.to_dict("records"), longer)).table
    assert set(table.loc[table["data"] == "synthetic", "budget"]) == {100, 400}


def test_where_steps_were_tuned_a_run_on_synthetic_data_alone_belongs_to_every_human_budget():
    tuned = frame_of(
        runs("sft", [10.0, 12.0, 14.0], budget=100, source="jsonl", steps=300, **{"tuned.steps": 300}),
        runs("sft", [15.0, 16.0, 17.0], budget=900, source="synthetic", steps=600, **GREEDY, **{"tuned.steps": 600}),
    )
    tuned = tuned.assign(tuning="one")
    assert two_stage(tuned).table.set_index("data").loc["synthetic", "score - human"] == "+4.0 [+1.5, +6.5]"


def test_sampled_and_filtered_answers_are_other_data():
    noisy = {"source_options.temperature": 1.0, "source_options.min_logp": -0.2}
    more = runs("sft", [1.0, 2.0, 3.0], budget=900, source="synthetic", **GREEDY, **noisy)
    table = two_stage(frame_of(FRAME.to_dict("records"), more)).table
    assert set(table["written by"]) == {"a, greedy", "a, T = 1, from -0.2 nats"}


def test_answers_that_a_teacher_wrote_are_listed_of_single_data_and_of_mixtures():
    class Manifest:
        def __init__(self, **content):
            self.content = content

        def model_dump(self):
            return self.content

    class Record:
        def __init__(self, *data):
            self.data = data

    written = {"teacher": "a", "answers": 9, "kept": 7, "dropped": {"empty": 2}}
    records = {"one": Record(Manifest(written=written)), "mixed": Record(Manifest(mix=[{}, {"written": written}]))}
    table = written_answers(records | {"human": Record(Manifest())})
    assert table["arm"].tolist() == ["one", "mixed"]
    assert table["kept"].tolist() == [7, 7]


def test_two_students_are_refused():
    other = runs("sft", [1.0], budget=100, source="jsonl", student="other")
    with pytest.raises(ValueError, match="compares one student"):
        two_stage(frame_of(FRAME.to_dict("records"), other))
