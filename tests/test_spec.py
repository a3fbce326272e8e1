"""A run is its content: one canonical text, one id, unknown keys refused by their path."""

import copy
import hashlib
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from studykit.errors import InputError
from studykit.spec import SCHEMA, Budget, Data, RunSpec

ROOT = Path(__file__).parents[1]
FULL = {
    "student": {"name": "lexicon/base-small", "lora": {"lora_r": 8, "lora_target_modules": ["q_proj", "v_proj"]}},
    "teacher": {"name": "lexicon/teacher-a", "top_k": 16},
    "stages": [
        {
            "data": {"source": "lexicon", "options": {"tasks": ["spell"]}, "budget": {"examples": 500, "seed": 3}},
            "method": "kd",
            "method_options": {"kd_ratio": 0.5, "loss_options": None},
            "steps": 300,
            "learning_rate": 4e-3,
        },
        {"data": {"source": "jsonl"}, "method": "sft", "steps": 10, "learning_rate": 1e-4},
    ],
    "evaluation": {"data": {"source": "lexicon", "split": "test"}, "items": 100},
    "seed": 7,
}
MINIMAL = {
    "student": {"name": "a"},
    "stages": [{"data": {"source": "lexicon"}, "method": "sft", "steps": 1, "learning_rate": 0.5}],
}


def shuffled(value: Any, generator: random.Random) -> Any:
    """Return plain data with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        generator.shuffle(keys)
        return {key: shuffled(value[key], generator) for key in keys}
    return [shuffled(part, generator) for part in value] if isinstance(value, list) else value


def test_the_canonical_text_does_not_depend_on_the_order_of_keys():
    texts = {RunSpec.parse(shuffled(FULL, random.Random(seed))).canonical() for seed in range(10)}
    assert len(texts) == 1


def test_the_canonical_text_of_the_smallest_specification():
    assert RunSpec.parse(MINIMAL).canonical() == (
        '{"seed":0,"stages":[{"batch_size":64,"data":{"budget":{"sampler":"uniform","seed":0},"options":{},'
        '"source":"lexicon","split":"train"},"gradient_accumulation_steps":1,"gradient_checkpointing":false,'
        '"learning_rate":0.5,"lr_scheduler_type":"cosine","max_grad_norm":1.0,"max_length":2048,"method":"sft",'
        '"method_options":{},"steps":1,"warmup_ratio":0.05,"weight_decay":0.0}],"student":{"name":"a"}}'
    )


def test_run_ids_stay_what_they_have_always_been():
    # With other ids every finished run is unknown: raise SCHEMA and write a migration instead.
    assert SCHEMA == 3
    assert RunSpec.parse(MINIMAL).run_id == "48f730e912cb"
    assert RunSpec.parse(FULL).run_id == "e4269133dd10"
    assert RunSpec.parse(FULL).evaluation[0].eval_id == "51152a0fe015"


COMMITTED = sorted((ROOT / "studykit" / "models" / "embedded").glob("*/*/record.json"))
OF_SCHEMA_1 = [file for file in COMMITTED if json.loads(file.read_text(encoding="utf-8"))["schema"] == 1]


@pytest.mark.parametrize("file", COMMITTED, ids=lambda file: file.parent.name)
def test_the_id_of_a_committed_run_is_the_hash_of_its_schema_and_specification(file):
    record = json.loads(file.read_text(encoding="utf-8"))
    text = json.dumps(record["spec"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(f"{record['schema']}:{text}".encode()).hexdigest()[:12] == record["run_id"]


@pytest.mark.parametrize("file", OF_SCHEMA_1, ids=lambda file: file.parent.name)
def test_a_specification_of_schema_1_is_read_under_todays_names(file):
    plain = json.loads(file.with_name("spec.json").read_text(encoding="utf-8"))
    spec = RunSpec.parse(plain)
    assert spec.student.sha256 == plain["student"]["content"]
    assert [stage.data.sha256 for stage in spec.stages] == [stage["data"]["content"] for stage in plain["stages"]]
    assert "content" not in spec.canonical()


def test_every_field_and_value_that_schema_1_named_otherwise_is_translated():
    old, new = copy.deepcopy(FULL), copy.deepcopy(FULL)
    for plain, sha256, selected, options in (
        (old, "content", "chosen", {"choose": "uniform", "loss": "decoupled"}),
        (new, "sha256", "selected_sha256", {"select": "uniform", "loss": "decoupled_kl"}),
    ):
        stage = plain["stages"][0]
        stage["validation"] = {"source": "lexicon"}
        parts = [plain["student"], plain["teacher"], stage["data"], stage["validation"], plain["evaluation"]["data"]]
        for number, part in enumerate(parts):
            part[sha256] = f"{number}" * 64
        stage[selected] = "a" * 64
        stage["method_options"] = options
    assert RunSpec.parse(old) == RunSpec.parse(new)


@pytest.mark.parametrize("change", [{"stages": 3}, {"stages": [3]}, {"stages": []}, {"teacher": 3}, {"evaluation": 3}])
def test_what_is_wrong_in_an_old_specification_is_refused_like_anywhere(change):
    with pytest.raises(InputError):
        RunSpec.parse(MINIMAL | {"student": {"name": "a", "content": "f0"}} | change)


def test_the_round_trip_through_json_is_the_same_run():
    spec = RunSpec.parse(FULL)
    again = RunSpec.parse(json.loads(spec.canonical()))
    assert again == spec
    assert (again.canonical(), again.run_id) == (spec.canonical(), spec.run_id)


def test_none_means_off_and_is_left_out():
    explicit = copy.deepcopy(MINIMAL)
    explicit |= {"teacher": None, "evaluation": None}
    explicit["student"] |= {"lora": None, "revision": None, "sha256": None}
    explicit["stages"][0]["data"]["budget"] = {"examples": None, "tokens": None}
    assert RunSpec.parse(explicit).run_id == RunSpec.parse(MINIMAL).run_id
    assert "null" not in RunSpec.parse(explicit).canonical()


@pytest.mark.parametrize("given", [{}, {"steps": 3, "epochs": 1.0}, {"steps": None, "epochs": None}])
def test_a_stage_has_steps_or_epochs(given):
    stage = {name: value for name, value in MINIMAL["stages"][0].items() if name != "steps"}
    with pytest.raises(InputError, match=r"stages\.0: .*give steps or epochs, one of them"):
        RunSpec.parse(MINIMAL | {"stages": [stage | given]})


def test_none_among_options_is_an_option():
    one, other = copy.deepcopy(MINIMAL), copy.deepcopy(MINIMAL)
    one["stages"][0]["method_options"] = {"loss_options": None}
    assert RunSpec.parse(one).run_id != RunSpec.parse(other).run_id


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("seed",), 8),
        (("student", "name"), "lexicon/base-large"),
        (("student", "lora", "lora_r"), 9),
        (("teacher", "top_k"), None),
        (("stages", 0, "data", "budget", "seed"), 4),
        (("stages", 0, "data", "options", "tasks"), ["stress"]),
        (("stages", 1, "steps"), 11),
        (("stages", 1, "code"), {"loss.mine": "0123456789ab"}),
    ],
)
def test_every_other_content_is_another_run(place, value):
    changed = copy.deepcopy(FULL)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    assert RunSpec.parse(changed).run_id != RunSpec.parse(FULL).run_id


@pytest.mark.parametrize(
    ("place", "value", "id_changes", "answers_change"),
    [
        (("items",), 101, True, True),
        (("max_new_tokens",), 8, True, True),
        (("data", "split"), "validation", True, True),
        (("data", "sha256"), "f0", True, True),
        (("code",), {"source.lexicon": "0123456789ab"}, True, True),
        (("scorers",), ["nll"], True, False),
        (("code",), {"scorer.nll": "0123456789ab"}, True, False),
        (("batch_size",), 8, False, False),
    ],
)
def test_an_evaluation_is_its_content_and_no_part_of_the_run(place, value, id_changes, answers_change):
    changed = copy.deepcopy(FULL)
    part = changed["evaluation"]
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    one, other = RunSpec.parse(FULL), RunSpec.parse(changed)
    assert one.run_id == other.run_id
    [first], [second] = one.evaluation, other.evaluation
    assert (first.eval_id != second.eval_id) == id_changes
    assert (first.answers_id != second.answers_id) == answers_change


def test_a_single_evaluation_needs_no_list_and_none_is_an_empty_one():
    single, listed = RunSpec.parse(FULL), RunSpec.parse(FULL | {"evaluation": [FULL["evaluation"]]})
    assert single == listed
    empty = [RunSpec.parse(MINIMAL | given) for given in ({}, {"evaluation": None}, {"evaluation": []})]
    assert len({spec.canonical() for spec in empty}) == 1
    assert single.training.evaluation == ()
    assert single.training.run_id == single.run_id


def test_equal_evaluations_are_refused_in_a_line():
    one, other = FULL["evaluation"], FULL["evaluation"] | {"items": 101}
    assert len(RunSpec.parse(FULL | {"evaluation": [one, other]}).evaluation) == 2
    with pytest.raises(InputError, match=r"^specification: evaluation: evaluations 1 and 3 are the same: remove one"):
        RunSpec.parse(FULL | {"evaluation": [one, other, one | {"batch_size": 1}]})


@pytest.mark.parametrize(("given", "path"), [(lambda e: e, ""), (lambda e: [e], "0.")])
def test_a_fault_of_an_evaluation_is_named_by_the_place_it_has(given, path):
    for change, message in (({"scorer": ["nll"]}, "scorer: unknown key 'scorer'"), ({"items": 0}, "items: ")):
        with pytest.raises(InputError, match=rf"specification: evaluation\.{path}{message}"):
            RunSpec.parse(FULL | {"evaluation": given(FULL["evaluation"] | change)})


def test_the_order_of_stages_is_content():
    turned = FULL | {"stages": FULL["stages"][::-1]}
    assert RunSpec.parse(turned).run_id != RunSpec.parse(FULL).run_id


@pytest.mark.parametrize(
    ("place", "wrong", "right"),
    [
        ((), "stagse", "stages"),
        (("student",), "nmae", "name"),
        (("student", "lora"), "lora_alfa", "lora_alpha"),
        (("teacher",), "topk", "top_k"),
        (("stages", 0), "learning_rte", "learning_rate"),
        (("stages", 1), "stepps", "steps"),
        (("stages", 0, "data"), "sorce", "source"),
        (("stages", 0, "data", "budget"), "example", "examples"),
        (("evaluation",), "scorer", "scorers"),
        (("evaluation", "data", "budget"), "sampeler", "sampler"),
    ],
)
def test_an_unknown_key_is_refused_at_every_depth_with_the_nearest(place, wrong, right):
    changed = copy.deepcopy(FULL)
    part = changed
    for key in place:
        part = part.setdefault(key, {}) if isinstance(part, dict) else part[key]
    part[wrong] = 1
    path = ".".join(map(str, (*place, wrong)))
    with pytest.raises(InputError) as refused:
        RunSpec.parse(changed)
    assert str(refused.value) == f"specification: {path}: unknown key {wrong!r}; did you mean {right!r}?"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "many"}, "seed: "),
        ({"seed": 1.5}, "seed: "),
        ({"seed": -1}, "seed: "),
        ({"stages": []}, "stages: "),
        ({"stages": {"a": "b"}}, "stages: "),
        ({"student": None}, "student: "),
        ({"student": {}}, "student.name: Field required"),
        ({"teacher": {"name": "a", "top_k": 0}}, "teacher.top_k: "),
        ({"stages": [MINIMAL["stages"][0] | {"learning_rate": float("nan")}]}, "stages.0.learning_rate: "),
        ({"stages": [MINIMAL["stages"][0] | {"learning_rate": "fast\nfast"}]}, "stages.0.learning_rate: "),
        ({"stages": [MINIMAL["stages"][0] | {"warmup_ratio": 1}]}, "stages.0.warmup_ratio: "),
        ({"stages": [MINIMAL["stages"][0] | {"method_options": {"a": float("nan")}}]}, "plain JSON values"),
        ({"stages": [MINIMAL["stages"][0] | {"method_options": {"a": {1, 2}}}]}, "plain JSON values"),
        ({"evaluation": {"data": {"source": "a"}, "items": 0}}, "evaluation.items: "),
    ],
)
def test_wrong_values_are_refused_in_one_line_that_names_the_place(change, message):
    with pytest.raises(InputError) as refused:
        RunSpec.parse(MINIMAL | change)
    assert str(refused.value).startswith("specification: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("data", [[1], "text", None, 3])
def test_what_is_no_mapping_is_refused(data):
    with pytest.raises(InputError, match="top level"):
        RunSpec.parse(data)


def test_a_budget_has_one_unit():
    with pytest.raises(ValidationError, match="examples=1 or tokens=2, not both"):
        Budget(examples=1, tokens=2)
    assert Data(source="a").budget == Budget()


def test_a_specification_cannot_be_changed():
    spec = RunSpec.parse(FULL)
    for part, name in (
        (spec, "seed"),
        (spec.student, "name"),
        (spec.stages[0], "steps"),
        (spec.stages[0].data.budget, "seed"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, 1)
    assert isinstance(spec.stages, tuple)


@pytest.mark.parametrize("place", ["seed", "stages.0.data.budget.seed"])
@pytest.mark.parametrize(
    "seed", [-1, 2**32, 10**20, 10**5000, True, 1.0, "1", None, [1]], ids=lambda seed: type(seed).__name__
)
def test_a_seed_that_no_generator_takes_is_refused_in_one_line(place, seed):
    plain: Any = {"student": {"name": "a"}, "stages": [{"data": {"source": "lexicon", "budget": {}}, "method": "sft"}]}
    plain["stages"][0] |= {"steps": 1, "learning_rate": 1.0}
    part: Any = plain
    *path, last = place.split(".")
    for name in path:
        part = part[int(name)] if name.isdigit() else part[name]
    part[last] = seed
    with pytest.raises(InputError, match=f"specification: {re.escape(place)}: ") as caught:
        RunSpec.parse(plain)
    assert "\n" not in str(caught.value)
