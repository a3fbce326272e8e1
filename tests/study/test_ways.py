"""Ways to combine human and synthetic data become arms with the right data in each stage."""

import pytest

from studykit import study
from studykit.errors import InputError
from studykit.spec import RunSpec

SHARED = {"student": "a", "teacher": "b", "source": "c", "budget_examples": 40, "learning_rate": 0.1, "seed": 3}
DATA = study.answers_by("b", {"source": "c", "split": "outside"}, [900], {"greedy": {}, "noisy": {"temperature": 1.0}})


def specs(patterns, **options):
    names, stages = study.ways(patterns, {"900 greedy": DATA["900 greedy"]}, **options)
    arms = study.arms(names, stage_options=stages, **SHARED)
    return {name: RunSpec.parse(arm) for name, arm in arms.items()}


def test_each_way_is_an_arm_named_by_its_methods_and_data():
    patterns = ["{human}", "{synthetic}", "{mixed}", "{synthetic} > {human}", "{human}>{synthetic}"]
    found = specs(patterns, recipes=[["kd", "sft"]], shares=[0.25, 0.5])
    assert list(found) == [
        "sft",
        "kd:900 greedy",
        "sft:25% of 900 greedy",
        "sft:50% of 900 greedy",
        "kd:900 greedy>sft",
        "sft>kd:900 greedy",
    ]
    sources = {name: [stage.data.source for stage in spec.stages] for name, spec in found.items()}
    assert sources["kd:900 greedy>sft"] == ["synthetic", "c"]
    assert sources["sft>kd:900 greedy"] == ["c", "synthetic"]
    assert len({sum(stage.planned_steps for stage in spec.stages) for spec in found.values()}) == 1
    [mixed] = found["sft:25% of 900 greedy"].stages
    assert [(data.source, weight, data.budget.examples, data.budget.seed) for data, weight in mixed.parts] == [
        ("c", 0.75, 40, 3),
        ("synthetic", 0.25, 900, 3),
    ]


def test_answers_are_written_by_one_teacher_in_several_ways():
    assert list(DATA) == ["900 greedy", "900 noisy"]
    assert DATA["900 noisy"] == {
        "source": "synthetic",
        "options": {"teacher": "b", "prompts": {"source": "c", "split": "outside"}, "temperature": 1.0},
        "budget": {"examples": 900},
    }


def test_a_stage_of_a_way_may_have_more_of_the_steps():
    found = specs(["{synthetic}*9 > {human}", "{human}>{synthetic}*3"], recipes=[["kd", "sft"]])
    assert {name: [stage.planned_steps for stage in spec.stages] for name, spec in found.items()} == {
        "kd:900 greedy*9>sft": [135, 15],
        "sft>kd:900 greedy*3": [38, 112],
    }
    assert [stage.data.source for stage in found["kd:900 greedy*9>sft"].stages] == ["synthetic", "c"]


@pytest.mark.parametrize("pattern", ["{humn}", "human", "{human}>", ""])
def test_a_way_of_something_else_is_refused(pattern):
    with pytest.raises(InputError, match="unknown stage of a way"):
        study.ways([pattern], DATA)


def test_a_recipe_is_a_pair():
    with pytest.raises(InputError, match="a recipe is a pair"):
        study.ways(["{human}"], DATA, recipes=[["sft"]])


@pytest.mark.parametrize("share", [0, -0.1, 1, 1.2, "a", None, True, float("nan")])
def test_a_share_is_a_number_between_0_and_1(share):
    with pytest.raises(InputError, match="shares: each must be a number between 0 and 1") as refused:
        study.ways(["{mixed}"], DATA, shares=[0.5, share])
    assert str(refused.value).endswith(f"received {share!r}")
