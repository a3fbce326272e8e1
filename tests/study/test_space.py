"""The space of a tuning: values or factors, one grid for each arm, all of the same size, widened for all alike."""

import pytest

from studykit import study
from studykit.errors import InputError
from studykit.study.space import Axis, apply, chosen_values, edges, grids_of, points, widen, widest
from studykit.study.tuning_plan import plan_tuning


def arm(*methods, options=None, **fields):
    stage = {"data": {"source": "lexicon"}, "steps": 300, "learning_rate": 0.004, "batch_size": 64} | fields
    stages = [stage | {"method": method, "method_options": dict(options or {})} for method in methods]
    return {"student": {"name": "a"}, "stages": stages}


ARMS = {"sft": arm("sft"), "kd": arm("kd")}


def test_every_arm_has_the_product_of_its_values():
    grids = grids_of(ARMS, {"steps": [300, 600], "learning_rate": [0.001, 0.002, 0.004]})
    assert {name: len(points(grid)) for name, grid in grids.items()} == {"sft": 6, "kd": 6}
    assert points(grids["kd"])[0] == {"learning_rate": 0.001, "steps": 300}


def test_a_list_holds_values_and_times_holds_factors():
    for values, expected in (([0.002], 0.002), ({"times": [0.5]}, 0.002), ({"times": [3]}, 0.012)):
        [grid] = grids_of({"kd": arm("kd")}, {"learning_rate": values}).values()
        [point] = points(grid)
        tuned = apply(ARMS["kd"], grid, point)
        assert [stage["learning_rate"] for stage in tuned["stages"]] == [expected]
        assert chosen_values(tuned, grid) == {"learning_rate": expected}
    assert ARMS["kd"]["stages"][0]["learning_rate"] == 0.004  # the arm itself stays as it is


def test_a_factor_times_a_value_is_the_run_of_that_value():
    [grid] = grids_of({"sft": arm("sft", learning_rate=0.0001)}, {"learning_rate": {"times": [3]}}).values()
    assert apply(arm("sft", learning_rate=0.0001), grid, points(grid)[0])["stages"][0]["learning_rate"] == 0.0003


@pytest.mark.parametrize(
    ("values", "steps"), [({"times": [0.5]}, [150, 150]), ([900], [450, 450]), ([901], [450, 451])]
)
def test_steps_are_those_of_all_stages_together(values, steps):
    two = arm("sft", "kd")
    [grid] = grids_of({"sft>kd": two}, {"steps": values}).values()
    tuned = apply(two, grid, points(grid)[0])
    assert [stage["steps"] for stage in tuned["stages"]] == steps
    assert chosen_values(tuned, grid) == {"steps": sum(steps)}


def test_steps_may_stand_above_epochs_and_factors_scale_them():
    by_epochs = arm("sft", epochs=2.0, steps=None)
    [grid] = grids_of({"sft": by_epochs}, {"steps": {"times": [0.5]}}).values()
    tuned = apply(by_epochs, grid, points(grid)[0])
    assert tuned["stages"][0]["epochs"] == 1.0
    assert chosen_values(tuned, grid) == {"epochs": 1.0}
    [grid] = grids_of({"sft": by_epochs}, {"steps": [70]}).values()
    stage = apply(by_epochs, grid, points(grid)[0])["stages"][0]
    assert (stage["steps"], stage["epochs"]) == (70, None)


def test_an_option_counts_in_the_stages_whose_method_has_it_and_its_default_has_factors():
    two = arm("sft", "gkd")
    [grid] = grids_of({"sft>gkd": two}, {"lmbda": {"times": [0.5]}}).values()
    options = [stage["method_options"] for stage in apply(two, grid, points(grid)[0])["stages"]]
    assert options == [{}, {"lmbda": 0.25}]


def test_values_under_the_name_of_an_arm_are_those_of_it_alone():
    space = {"steps": [300, 600], "sft": {"learning_rate": [0.001, 0.002]}, "kd": {"kd_ratio": [0.5, 1.0]}}
    grids = grids_of(ARMS, space)
    assert {name: [axis.name for axis in grid] for name, grid in grids.items()} == {
        "sft": ["learning_rate", "steps"],
        "kd": ["kd_ratio", "steps"],
    }
    assert len(points(grids["sft"])) == len(points(grids["kd"])) == 4


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        ({"learning_rat": [1]}, "unknown name 'learning_rat'; did you mean 'learning_rate'"),
        ({"kd": {"lmbda": [1]}}, "arm kd: unknown name 'lmbda'"),
        ({"learning_rate": []}, "learning_rate has no values"),
        ({"kd": {}}, "names no setting"),
        ({"learning_rate": 0.1}, "give a list of values, received 0.1"),
        ({"learning_rate": "0.1"}, "give a list of values"),
        ({"learning_rate": [0.1, 0.1]}, "has a value twice"),
        ({"learning_rate": {"factors": [1]}}, r"or \{'times'"),
        ({"learning_rate": {"times": [0, 1]}}, "factors are numbers above 0"),
        ({"lr_scheduler_type": {"times": [1]}}, "'cosine' without tuning, which has no factors"),
        ({"steps": [0.5, 1]}, "steps is a whole number"),
        ({"kd": [0.1]}, "what holds for one arm is a mapping"),
        ({"learning_rate": [0.1], "kd_ratio": [0.5, 1.0]}, "they have sft 1, kd 2: give sft, which has no kd_ratio"),
        ({"learning_rate": [0.1], "sft": {"learning_rate": [0.1, 0.2]}}, "sft 2, kd 1: give kd"),
    ],
)
def test_a_wrong_space_is_refused_in_one_line(space, complaint):
    with pytest.raises(InputError, match=complaint):
        grids_of(ARMS, space)


def test_an_arm_that_is_named_like_a_setting_is_refused():
    with pytest.raises(InputError, match="is an arm and a setting"):
        grids_of({"steps": arm("sft")}, {"steps": [1]})


def test_a_grid_goes_on_by_its_last_ratio():
    assert Axis("learning_rate", (0.001, 0.002, 0.004)).beyond(1) == 0.008
    assert Axis("learning_rate", (0.004, 0.001, 0.002)).beyond(-1) == 0.0005
    assert Axis("steps", (300, 600)).beyond(1) == 1200
    assert Axis("weight_decay", (0.0, 0.1)).beyond(1) == 0.2


def test_one_arm_at_the_edge_widens_the_grid_of_all_in_that_direction():
    grids = grids_of(ARMS, {"learning_rate": [0.001, 0.002, 0.004], "steps": [300, 600, 900]})
    middle = {"learning_rate": 0.002, "steps": 600}
    assert widen(ARMS, grids, {"sft": middle, "kd": middle}) == grids
    wider = widen(ARMS, grids, {"sft": middle, "kd": middle | {"learning_rate": 0.004}})
    assert [axis.values for axis in wider["sft"]] == [(0.001, 0.002, 0.004, 0.008), (300, 600, 900)]
    assert wider["sft"] == wider["kd"]
    both = widen(ARMS, grids, {"sft": middle | {"learning_rate": 0.001}, "kd": middle | {"learning_rate": 0.004}})
    assert both["sft"][0].values == (0.001, 0.002, 0.004, 0.0005, 0.008)
    assert len(points(both["sft"])) == len(points(both["kd"])) == 15


def test_the_widest_grid_goes_on_at_every_edge_that_can():
    grids = grids_of(ARMS, {"learning_rate": [0.001, 0.002], "steps": [100, 200], "lr_scheduler_type": ["cosine"]})
    wider = widest(ARMS, grids)
    assert {axis.name: axis.values for axis in wider["sft"]} == {
        "learning_rate": (0.001, 0.002, 0.0005, 0.004),
        "lr_scheduler_type": ("cosine",),
        "steps": (100, 200, 50, 400),
    }
    assert wider["sft"] == wider["kd"]


def test_a_value_that_no_run_may_have_ends_the_grid():
    arms = {"kd": arm("kd"), "akl": arm("akl")}
    grids = grids_of(arms, {"kd_ratio": [0.5, 1.0]})
    best = {name: {"kd_ratio": 1.0} for name in arms}
    assert widen(arms, grids, best) == grids
    assert edges(grids["kd"], best["kd"]) == {"kd_ratio": 1}  # it is said


def test_an_axis_that_would_give_arms_different_numbers_of_trials_stays():
    space = {
        "sft": {"learning_rate": [0.1, 0.2, 0.3, 0.4]},
        "kd": {"learning_rate": [0.1, 0.2], "kd_ratio": [0.3, 0.6]},
    }
    grids = grids_of(ARMS, space)
    best = {"sft": {"learning_rate": 0.4}, "kd": {"learning_rate": 0.2, "kd_ratio": 0.3}}
    assert widen(ARMS, grids, best) == grids
    text = grids_of(ARMS, {"lr_scheduler_type": ["cosine", "linear"]})
    assert edges(text["sft"], {"lr_scheduler_type": "linear"}) == {}


def test_arms_must_share_their_evaluation():
    shared = {"student": "a", "teacher": "b", "source": "c", "budget_examples": 12, "learning_rate": 0.01}
    arms = study.arms(["sft", "kd"], **shared)
    arms["kd"] = arms["kd"] | {"evaluation": arms["kd"]["evaluation"] | {"max_new_tokens": 5}}
    with pytest.raises(InputError, match="must share their evaluation"):
        plan_tuning(arms, {"learning_rate": [0.003, 0.01]})
    with pytest.raises(InputError, match="has no evaluation"):
        plan_tuning({"sft": arms["sft"] | {"evaluation": None}}, {"learning_rate": [0.003, 0.01]})
