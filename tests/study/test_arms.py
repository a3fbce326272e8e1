"""Arms by short names: the shipped notebooks build the specifications that their former arms cells built."""

import json
from pathlib import Path

import pytest

from studykit import study
from studykit.batch import notebooks
from studykit.batch.grid import plan
from studykit.errors import InputError
from studykit.methods import METHODS, get_method
from studykit.spec import RunSpec
from studykit.study.arms import steps_for

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SHARED = {"student": "a", "teacher": "b", "source": "c", "budget_examples": 500, "learning_rate": 0.1}


# The cells as they were, with the whole formula in each; `stages` was the package's.


def shared_parts(p, lora):
    data = {"source": p["source"], "options": p["source_options"]}
    stage = {
        "data": data | {"budget": {"examples": p["budget_examples"], "sampler": p["sampler"], "seed": p["seed"]}},
        "steps": p["steps"] or round(300 * (p["budget_examples"] / 500) ** 0.275),
        "batch_size": p["batch_size"],
        "gradient_accumulation_steps": p["gradient_accumulation_steps"],
        "learning_rate": p["learning_rate"],
        "max_length": p["max_length"],
        **p["training_options"],
    }
    drawn = {"budget": {"examples": p["test_items"], "sampler": "uniform", "seed": 0}}
    items = p["test_items"] if p["test_sampler"] == "first" else None
    shared = {
        "student": {"name": p["student"], **lora, **p["student_options"]},
        "evaluation": {
            "data": data | {"split": p["test_split"]} | ({} if items else drawn),
            "items": items,
            "max_new_tokens": p["max_new_tokens"],
            "batch_size": p["test_batch_size"],
        },
        "seed": p["seed"],
    }
    return data, stage, shared


def data_size(p):
    adapters = {"lora_r": p["lora_r"], "lora_alpha": p["lora_alpha"]}
    _, stage, shared = shared_parts(p, {"lora": adapters if p["lora_r"] else None})
    teacher = {"name": p["teacher"], "top_k": p["teacher_top_k"] or None, **p["teacher_options"]}
    distilled = [stage | {"method": p["method"], "method_options": p["method_options"]}]
    return {
        "sft": shared | {"stages": [stage | {"method": "sft"}]},
        p["method"]: shared | {"stages": distilled, "teacher": teacher},
    }


def methods(p):
    data, stage, shared = shared_parts(p, {})
    held_out = data | {"split": p["validation_split"], "budget": {"examples": p["validation_items"]}}
    offered = {"max_new_tokens": p["max_new_tokens"], "reference": p["reference"]}
    return {
        name: shared
        | {
            "teacher": p["teacher_options"] | {"name": p["teachers"].get(name, p["teacher"])},
            "stages": stages(name, stage | {"validation": held_out}, p["method_options"], offered),
        }
        for name in p["methods"]
    }


def stages(arm, stage, options, offered):
    parts = arm.split(">")
    share, more = divmod(stage["steps"], len(parts))
    made = []
    for number, part in enumerate(parts):
        method = part.partition(":")[0]
        given = {name: value for name, value in offered.items() if name in METHODS.options(method)}
        given |= options.get(part, {})
        made.append({**stage, "method": method, "method_options": given, "steps": share + (number < more)})
    return made


def teacher_cache(p):
    _, stage, shared = shared_parts(p, {})
    signals = (
        {"dense": {}}
        | {f"top_k={k}": {"top_k": k} for k in p["top_k"]}
        | {f"samples={n}": {"samples": n} for n in p["samples"]}
    )
    distilled = [stage | {"method": p["method"], "method_options": p["method_options"]}]
    return {"sft": shared | {"stages": [stage | {"method": "sft"}]}} | {
        name: shared | {"stages": distilled, "teacher": {"name": p["teacher"], **p["teacher_options"], **cached}}
        for name, cached in signals.items()
    }


FORMER = {"01_data_size": data_size, "02_methods": methods, "10_teacher_cache": teacher_cache}
OTHER = {
    "student_options": {"attn_implementation": "sdpa"},
    "teacher_options": {"attn_implementation": "eager", "pruned": 0.1},
    "training_options": {"gradient_checkpointing": True, "batch_size": 3},
    "seed": 3,
}
VARIANTS = [
    *[(name, {}) for name in FORMER],
    *[(name, OTHER) for name in FORMER],
    *[(name, {"steps": 31, "budget_examples": 15000, "training_options": {"steps": 8}}) for name in FORMER],
    ("01_data_size", {"lora_r": 8, "teacher_top_k": 0, "method": "gkd", "method_options": {"lmbda": 1.0}}),
    ("01_data_size", {"student_options": {"lora": {"lora_r": 2}}, "lora_r": 8}),
    ("02_methods", {"methods": ["sft>gkd", "uld", "miniplm", "kd"], "method_options": {"gkd": {"lmbda": 1.0}}}),
    ("02_methods", {"methods": ["sft>kd>gkd"], "steps": 302, "teacher_options": {"samples": 8}}),
    ("01_data_size", {"test_sampler": "first"}),
    ("10_teacher_cache", {"top_k": [], "samples": [8, 9], "method_options": {"kd_ratio": 0.5}}),
]


def canonical(plain):
    """Return the canonical form, without a teacher where no method needs one: pinning drops it."""
    spec = RunSpec.parse(dict(plain))
    if not any(get_method(stage.method, **stage.method_options).needs_teacher for stage in spec.stages):
        spec = spec.model_copy(update={"teacher": None})
    return spec.canonical()


def same_as_before(notebook, parameters):
    before, now = FORMER[notebook.stem](parameters), notebooks.arms_of(notebook, parameters)
    assert list(now) == list(before)
    assert {name: canonical(arm) for name, arm in now.items()} == {n: canonical(arm) for n, arm in before.items()}


@pytest.mark.parametrize(("name", "given"), VARIANTS, ids=lambda x: x if isinstance(x, str) else json.dumps(x)[:60])
def test_a_notebook_builds_the_specifications_of_its_former_cell(name, given):
    path = NOTEBOOKS / f"{name}.ipynb"
    same_as_before(path, notebooks.check_parameters(path, given))


@pytest.mark.parametrize("batch", sorted(path.stem for path in (NOTEBOOKS / "batches").glob("*.yaml")))
def test_a_batch_builds_the_specifications_of_the_former_cells(batch, tmp_path):
    for cell in plan(batch, folder=NOTEBOOKS, results_root=tmp_path):
        if cell.notebook.stem in FORMER:
            same_as_before(cell.notebook, cell.parameters)


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_an_arms_cell_is_at_most_five_lines(name):
    assert len(notebooks.tagged_source(NOTEBOOKS / f"{name}.ipynb", "arms").splitlines()) <= 5


def test_the_committed_studies_are_scored_on_the_items_that_their_runs_name(tmp_path):
    for batch in ("lexicon", "methods", "teacher_cache"):
        [cell, *_] = plan(batch, folder=NOTEBOOKS, results_root=tmp_path)
        for arm in notebooks.arms_of(cell.notebook, cell.parameters).values():
            [evaluation] = RunSpec.parse(dict(arm)).evaluation
            assert (evaluation.items, evaluation.data.budget.examples) == (1000, None)


def test_held_out_items_are_drawn_from_one_seed_for_all_runs():
    budgets = set()
    for seed in (0, 1):
        for arm in study.arms(["sft", "kd"], seed=seed, test_items=9, **SHARED).values():
            budgets.add(json.dumps(arm["evaluation"]["data"]["budget"]))
    assert budgets == {'{"examples": 9, "sampler": "uniform"}'}
    [whole] = study.arms(["sft"], **SHARED).values()
    assert "budget" not in whole["evaluation"]["data"]


def test_a_primary_metric_that_is_not_measured_is_refused_and_one_that_is_changes_no_run():
    scorers = ["nll", {"name": "label", "anywhere": True}]
    with pytest.raises(InputError, match="primary_metric 'exact_match' is none of the scorers: nll, label"):
        study.arms(["sft"], scorers=scorers, primary_metric="exact_match", **SHARED)
    arms = [study.arms(["sft"], scorers=scorers, primary_metric=name, **SHARED) for name in ("label", "nll", None)]
    assert arms[0] == arms[1] == arms[2]


def test_agreement_is_with_the_one_teacher_in_all_arms():
    arms = study.arms(["sft", "kd"], scorers=["teacher_agreement"], **SHARED)
    assert [arm["evaluation"]["teacher"] for arm in arms.values()] == ["b", "b"]
    assert all("teacher" not in arm["evaluation"] for arm in study.arms(["sft", "kd"], **SHARED).values())


def test_an_arm_without_a_method_that_needs_a_teacher_has_none():
    arms = study.arms(["sft", "kd", "sft>kd"], **SHARED)
    assert {name: "teacher" in arm for name, arm in arms.items()} == {"sft": False, "kd": True, "sft>kd": True}


def test_a_mapping_names_arms_that_their_methods_do_not_tell_apart():
    arms = study.arms({"live": "kd", "cached": "kd"}, teachers={"cached": {"top_k": 4}}, **SHARED)
    assert [arm["teacher"]["top_k"] for arm in arms.values()] == [None, 4]


def test_a_stage_has_fields_that_the_others_have_not_and_keeps_what_is_left_of_its_data_and_budget():
    options = {
        "sft:few": {"data": {"budget": {"examples": 9}}, "learning_rate": 0.2},
        "sft:other": {"data": {"source": "d", "options": {"path": "e"}}},
        "sft:mixed": {"mix": [{"data": {"source": "d", "budget": {"examples": 3}}, "weight": 0.25}]},
    }
    options["sft:taught"] = {"mix": [options["sft:mixed"]["mix"][0] | {"method": "kd"}]}
    taught = study.arms(["sft:taught"], stage_options=options, **SHARED)["sft:taught"]
    assert taught["teacher"]["name"] == SHARED["teacher"]  # a part of each step needs it
    arms = study.arms(["sft", "sft>sft:few", "sft:other", "sft:mixed"], seed=4, stage_options=options, **SHARED)
    assert not any("teacher" in arm for arm in arms.values())
    [plain], [_, few], [other], [mixed] = (list(arm["stages"]) for arm in arms.values())
    budget = {"examples": 500, "sampler": "uniform", "options": None, "seed": 4}
    assert plain["data"]["budget"] == budget
    assert few["data"] == plain["data"] | {"budget": budget | {"examples": 9}}
    assert (few["learning_rate"], plain["learning_rate"]) == (0.2, 0.1)
    assert other["data"] == plain["data"] | {"source": "d", "options": {"path": "e"}}
    assert mixed["data"] == plain["data"]
    assert mixed["mix"] == [{"data": {"source": "d", "budget": {"examples": 3, "seed": 4}}, "weight": 0.25}]


def test_stages_share_the_steps_by_weights():
    names = ["sft*9>kd:half", "kd:half > sft*0.25", "sft*2>sft>kd*2"]
    half = {"kd:half": {"kd_ratio": 0.5}}
    arms = study.arms(names, steps=103, method_options=half, **SHARED)
    assert {arm: [stage["steps"] for stage in one["stages"]] for arm, one in arms.items()} == {
        "sft*9>kd:half": [93, 10],  # 92.7 and 10.3
        "kd:half > sft*0.25": [82, 21],  # 82.4 and 20.6
        "sft*2>sft>kd*2": [41, 21, 41],  # 41.2, 20.6 and 41.2
    }
    halved = [stage for arm in arms.values() for stage in arm["stages"] if stage["method_options"]]
    assert [stage["method_options"] for stage in halved] == [half["kd:half"]] * 2


def test_a_stage_has_its_part_of_the_learning_rate():
    few = {"kd:few": {"learning_rate": 0.5}}
    names = ["sft>kd@0.1", "sft*3@2 > kd * 1 @ 0.3", "kd:few@0.1", "sft>kd"]
    arms = study.arms(names, stage_options=few, steps=100, **SHARED | {"learning_rate": 0.0001})
    assert {arm: [stage["learning_rate"] for stage in one["stages"]] for arm, one in arms.items()} == {
        "sft>kd@0.1": [0.0001, 0.00001],
        "sft*3@2 > kd * 1 @ 0.3": [0.0002, 0.00003],  # to the last digit, so that runs are shared
        "kd:few@0.1": [0.05],
        "sft>kd": [0.0001, 0.0001],
    }
    assert [stage["steps"] for stage in arms["sft*3@2 > kd * 1 @ 0.3"]["stages"]] == [75, 25]


def test_given_steps_stand_above_the_budget():
    for steps, expected in ((0, steps_for(500)), (7, 7)):
        [stage] = study.arms(["sft"], steps=steps, **SHARED)["sft"]["stages"]
        assert stage["steps"] == expected


@pytest.mark.parametrize(
    ("names", "given", "complaint"),
    [
        (["kdd"], {}, "unknown method 'kdd'; did you mean 'kd'"),
        (["kd"], {"method_options": {"kd": {"kd_rato": 1.0}}}, "method 'kd': unknown option 'kd_rato'"),
        (["kd"], {"teacher_topk": 4}, "unknown option 'teacher_topk'; did you mean 'teacher_top_k'"),
        (["kd"], {"stage_options": {"kdd": {"bf16": True}}}, "stage_options: unknown method 'kdd'"),
        (["kd"], {"stage_options": {"kd": {"steps": 9}}}, "stage_options of 'kd': steps has another parameter"),
        (["kd"], {"seed": -1}, "seed must be greater than or equal to 0"),
        (["sft*0>kd"], {}, r"stage 'sft\*0' of an arm: the weight of its steps must be more than 0"),
        (["sft>kd@0"], {}, "stage 'kd@0' of an arm: the factor of its learning rate must be more than 0"),
        (["sft>kd@1e-3"], {}, "stage 'kd@1e-3' of an arm: .* plain numbers, such as kd"),
        (["sft*x>kd"], {}, r"stage 'sft\*x' of an arm: after the method comes \*WEIGHT"),
        (["kd@0.1*9"], {}, r"stage 'kd@0.1\*9' of an arm: after the method comes \*WEIGHT"),
        (["kd"], {"steps": "many"}, "steps must be"),
    ],
)
def test_wrong_names_and_values_are_refused(names, given, complaint):
    with pytest.raises(InputError, match=complaint):
        study.arms(names, **SHARED, **given)


def test_a_missing_parameter_is_refused_by_name():
    with pytest.raises(InputError, match="'learning_rate' is required"):
        study.arms(["sft"], **{name: value for name, value in SHARED.items() if name != "learning_rate"})


def test_parameters_are_those_names_that_arms_takes():
    assert study.parameters({"seed": 1, "_": 2, "In": [], "study": "s", "results": "r"}) == {"seed": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method_options": {"kdd": {"temperature": 2.0}}}, "unknown method 'kdd'; did you mean 'kd'"),
        ({"method_options": {"sft>kd": {"temperature": 2.0}}}, "method_options: unknown method 'sft>kd'"),
        ({"common_options": {"temprature": 3.0}}, "unknown option 'temprature'; did you mean 'temperature'"),
    ],
)
def test_options_that_would_be_lost_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        study.arms(["kd"], **SHARED, **values)
    assert study.arms(["kd"], **SHARED, method_options={"taid:linear": {"schedule": "linear"}, "sft>kd": {}})


def test_epochs_are_steps_by_the_budget_and_the_same_in_all_arms():
    shared = SHARED | {"epochs": 2, "batch_size": 8, "gradient_accumulation_steps": 2}
    plain = study.arms(["sft", "sft>kd", "miniplm"], **shared | {"common_options": {"reference": "r"}})
    assert {arm: [stage["steps"] for stage in one["stages"]] for arm, one in plain.items()} == {
        "sft": [63],  # 1,000 examples, 16 in a step
        "sft>kd": [32, 31],
        "miniplm": [63],
    }


@pytest.mark.parametrize("steps", [{"steps": 9}, {"training_options": {"steps": 9}}])
def test_epochs_beside_steps_are_refused(steps):
    with pytest.raises(InputError, match="give steps or epochs, not both"):
        study.arms(["sft"], **SHARED | {"epochs": 1.0} | steps)


def test_validation_data_without_a_source_is_that_of_the_stage():
    best = {"load_best_model_at_end": True, "validation": {"split": "validation", "budget": {"examples": 7}}}
    [stage] = study.arms(["sft"], **SHARED | {"training_options": best})["sft"]["stages"]
    data = {name: value for name, value in stage["data"].items() if name != "budget"}
    assert stage["validation"] == data | best["validation"]
    [named] = study.arms(["sft"], **SHARED | {"validation_split": "validation", "validation_items": 7})["sft"]["stages"]
    assert named["validation"] == stage["validation"]
    [both] = study.arms(["sft"], **SHARED | {"training_options": best | {"data": {"source": "jsonl"}}})["sft"]["stages"]
    assert both["validation"] == data | {"source": "jsonl"} | best["validation"]
    best["validation"] = {"source": "jsonl", "split": "dev"}
    [other] = study.arms(["sft"], **SHARED | {"training_options": best})["sft"]["stages"]
    assert other["validation"] == best["validation"]
    best["validation"] = {"budget": {"examples": 3}}
    [more] = study.arms(["sft"], **SHARED | {"validation_split": "validation", "training_options": best})["sft"][
        "stages"
    ]
    assert more["validation"] == data | {"split": "validation", "budget": {"examples": 3}}
    with pytest.raises(InputError, match="validation data needs a split"):
        study.arms(["sft"], **SHARED | {"training_options": best})
