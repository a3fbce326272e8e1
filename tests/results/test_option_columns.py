"""Options are columns, and whatever differs between two runs tells them apart."""

import copy
from typing import Any, get_args

import pandas as pd
import pytest

from studykit import results
from studykit.errors import InputError
from studykit.findings import comparable, labels
from studykit.results.options import DEFAULTS, evaluation_values, option_columns, option_values
from studykit.scorers import SCORERS
from studykit.spec import Budget, Data, Evaluation, Filters, Lora, RunSpec, Stage, Student, Teacher

DATA = {"source": "lexicon", "budget": {"examples": 100}}
STAGE = {"data": DATA, "method": "kd", "steps": 10, "learning_rate": 0.01}
PLAIN = {
    "student": {"name": "small"},
    "teacher": {"name": "large"},
    "stages": [STAGE | {"validation": {"source": "lexicon", "split": "test"}}],
    "evaluation": {"data": {"source": "lexicon", "split": "test"}},
}
CHANGES: dict[tuple, tuple[Any, str]] = {  # place: another value, its column; see `derived` for all others
    ("student", "random_config"): ({"hidden_size": 8}, "student_random_config.hidden_size"),
    ("student", "lora"): ({}, "lora_r"),
    ("teacher", "name"): ("larger", "teacher"),
    ("teacher", "endpoint"): ({"model": "served", "logprobs": 4}, "teacher_endpoint_model"),
    ("stages", 0, "data", "source"): ("jsonl", "source"),
    ("stages", 0, "data", "split"): ("validation", "split"),
    ("stages", 0, "data", "options"): ({"tasks": ["a, b", "c"]}, "source_options.tasks"),
    ("stages", 0, "data", "budget", "sampler"): ("stratified", "sampler"),
    ("stages", 0, "data", "budget", "options"): ({"reference": "x"}, "sampler_options.reference"),
    ("stages", 0, "validation", "source"): ("jsonl", "validation_source"),
    ("stages", 0, "validation", "split"): ("validation", "validation_split"),
    ("stages", 0, "mix"): ([{"data": {"source": "jsonl"}, "weight": 0.5}], "mix"),
    ("stages", 0, "mix_by"): ("tokens", "mix_by"),
    ("stages", 0, "exclude"): (["a"], "exclude"),
    ("stages", 0, "teacher"): ({"name": "another"}, "own_teacher"),
    ("stages", 0, "method_options"): ({"beta": 0.5}, "method_options.beta"),
    ("stages", 0, "steps"): (20, "steps"),
    ("stages", 0, "code"): ({"loss.mine": "abc"}, "code.loss.mine"),
    ("evaluation", "code"): ({"scorer.mine": "abc"}, "evaluation_code.scorer.mine"),
    ("evaluation", "scorers"): (["nll"], "evaluation_scorers"),
    ("evaluation", "choices"): (["yes", "no"], "evaluation_choices"),
    ("evaluation", "data", "source"): ("jsonl", "evaluation_source"),
    ("evaluation", "data", "split"): ("validation", "evaluation_split"),
    ("evaluation", "data", "options"): ({"tasks": ["a"]}, "evaluation_source_options.tasks"),
    ("evaluation", "data", "budget"): ({"examples": 9}, "evaluation_examples"),
}
PARTS = {  # place: type, and what the names of its columns start with
    ("student",): (Student, "student_"),
    ("student", "lora"): (Lora, ""),
    ("teacher",): (Teacher, "teacher_"),
    ("stages", 0): (Stage, ""),
    ("stages", 0, "data"): (Data, ""),
    ("stages", 0, "data", "filters"): (Filters, "filter_"),
    ("stages", 0, "data", "budget"): (Budget, ""),
    ("stages", 0, "validation"): (Data, "validation_"),
    ("stages", 0, "validation", "filters"): (Filters, "validation_filter_"),
    ("stages", 0, "validation", "budget"): (Budget, "validation_"),
    ("evaluation",): (Evaluation, "evaluation_"),
    ("evaluation", "data"): (Data, "evaluation_"),
    ("evaluation", "data", "filters"): (Filters, "evaluation_filter_"),
    ("evaluation", "data", "budget"): (Budget, "evaluation_"),
}
NO_CASE = {  # columns of mappings, with one column for each key
    "code",
    "evaluation_code",
    "student_random_config",
    "validation_sampler_options",
    "evaluation_sampler_options",
}


def changed(place, value, plain=PLAIN):
    """Return a specification with another value at one path."""
    content = copy.deepcopy(plain)
    part = content
    for key in place[:-1]:
        part = part.setdefault(key, {}) if isinstance(part, dict) else part[key]
    part[place[-1]] = value
    return RunSpec.parse(content)


def derived():
    """Return changes of the fields that have a column and no line above."""
    for place, (part, prefix) in PARTS.items():
        for field, info in part.model_fields.items():
            if prefix + field in DEFAULTS and (*place, field) not in CHANGES:
                value = another_value(part, (*place, field), info.annotation)
                if value is not None:
                    yield (*place, field), (value, prefix + field)


def another_value(part, place, annotation):
    """Return a value that the field accepts as it is and that is not its default, or None."""
    literals = [value for kind in (annotation, *get_args(annotation)) for value in get_args(kind)]
    default = part.model_fields[place[-1]].default
    for value in [value for value in literals if isinstance(value, str)] + [True, False, 2, 3, 0.25, 2.5, "another"]:
        try:
            read: Any = changed(place, value)
        except InputError:
            continue
        for key in place:
            read = read[key] if isinstance(key, int) else getattr(read, key, None)  # a part that is off is none
            read = read[0] if key == "evaluation" else read
        if type(read) is type(value) and read != default:
            return value
    return None


CHANGES |= dict(derived())
every_change = pytest.mark.parametrize(("place", "change"), CHANGES.items(), ids=lambda x: ".".join(map(str, x)))


@pytest.fixture
def frame_of(tmp_path, make_run):
    """Write a run for each specification and load their table."""

    def make(*specs):
        study = results.open_study(tmp_path, "sample")
        for spec in specs:
            make_run(study, spec)
        return results.load(study)

    return make


@every_change
def test_whatever_differs_is_a_column_and_is_never_averaged(place, change, frame_of):
    value, column = change
    frame = frame_of(RunSpec.parse(PLAIN), changed(place, value))
    assert frame[column].nunique(dropna=False) == 2
    assert labels(frame).nunique() == 2
    if column != "steps":
        assert results.configurations(frame).nunique() == 2
        assert column in results.identity_columns(frame)


def test_every_field_of_a_specification_has_a_case():
    columns = {column for _, column in CHANGES.values()}
    assert set(DEFAULTS) - columns == NO_CASE


@pytest.mark.parametrize("part", ["validation", "evaluation"])
def test_a_seed_of_other_data_that_some_run_has_too_is_the_same_option_in_all_runs(part, frame_of):
    content: dict[str, Any] = copy.deepcopy(PLAIN)
    data = {"source": "lexicon", "budget": {"examples": 9, "seed": 3}}
    if part == "validation":
        content["stages"][0]["validation"] = data
    else:
        content["evaluation"]["data"] = data
    frame = frame_of(*(RunSpec.parse(content | {"seed": seed}) for seed in range(5)))
    assert frame[f"{part}_seed"].tolist() == [3] * 5
    assert set(labels(frame)) == {"kd"}


def test_steps_of_stages_that_vary_with_the_budget_are_no_options(frame_of):
    specs = []
    for examples, steps in ((100, (5, 6)), (200, (7, 8))):
        data = {"source": "lexicon", "budget": {"examples": examples}}
        stages = [STAGE | {"data": data, "steps": count} for count in steps]
        specs.append(RunSpec.parse(PLAIN | {"stages": stages}))
    frame = frame_of(*specs)
    assert set(labels(frame)) == {"kd > kd"}
    assert len(comparable(frame, frame[frame["budget_examples"] == 100])) == 2
    swapped = specs[0].model_copy(update={"stages": specs[0].stages[::-1]})
    frame = frame_of(*specs, swapped)
    assert labels(frame).nunique() == 3
    assert len(comparable(frame, frame[frame["run_id"] == swapped.run_id])) == 2


def test_seed_and_budget_are_no_options(frame_of):
    other: dict[str, Any] = copy.deepcopy(PLAIN) | {"seed": 1}
    other["stages"][0]["data"] = DATA | {"budget": {"examples": 200, "seed": 1}}
    frame = frame_of(RunSpec.parse(PLAIN), RunSpec.parse(other))
    assert results.configurations(frame).nunique() == 1
    assert set(labels(frame)) == {"kd"}


@pytest.mark.parametrize("place", [("student",), ("teacher",), ("stages", 0, "data"), ("stages", 0, "validation")])
def test_other_weights_or_lines_under_one_name_are_never_averaged(place, frame_of):
    one, other = (changed((*place, "sha256"), sha256) for sha256 in ("a" * 64, "b" * 64))
    frame = frame_of(one, other.model_copy(update={"seed": 1}))
    assert results.configurations(frame).nunique() == labels(frame).nunique() == 2
    assert len(comparable(frame, frame[:1])) == 1


def test_a_hash_is_not_named_where_a_name_tells(frame_of):
    specs = [changed(("teacher",), {"name": name, "sha256": name * 64}) for name in "ab"]
    assert set(labels(frame_of(*specs))) == {"kd (teacher=a)", "kd (teacher=b)"}


def test_a_default_is_shown_where_another_run_differs_and_no_column_exists_where_none_does(frame_of):
    frame = frame_of(RunSpec.parse(PLAIN), changed(("stages", 0, "batch_size"), 32))
    assert sorted(frame["batch_size"]) == [32, 64]
    assert frame["batch_size"].dtype == "Int64"
    assert "warmup_ratio" not in frame
    assert set(labels(frame)) == {"kd (batch_size=32)", "kd (batch_size=64)"}


def test_the_default_of_a_part_that_a_run_lacks_is_not_shown(frame_of):
    without = {name: part for name, part in PLAIN.items() if name != "evaluation"} | {"seed": 1}
    frame = frame_of(RunSpec.parse(without), changed(("evaluation", "max_new_tokens"), 16))
    assert frame["evaluation_max_new_tokens"].isna().sum() == 1


def test_a_list_with_a_comma_in_it_is_one_value(frame_of):
    specs = [changed(("stages", 0, "method_options"), {"tasks": tasks}) for tasks in (["a, b"], ["a", "b"])]
    frame = frame_of(*specs)
    assert set(frame["method_options.tasks"]) == {'["a, b"]', '["a", "b"]'}
    assert set(labels(frame)) == {'kd (tasks=["a, b"])', 'kd (tasks=["a", "b"])'}


def test_null_among_options_is_another_value_than_none(frame_of):
    frame = frame_of(RunSpec.parse(PLAIN), changed(("stages", 0, "method_options"), {"beta": None}))
    assert results.configurations(frame).nunique() == 2


def test_what_stages_share_has_the_plain_name_and_the_rest_each_its_own(frame_of):
    second = STAGE | {"learning_rate": 0.5, "steps": 20, "batch_size": 8, "data": {"source": "lexicon"}}
    frame = frame_of(RunSpec.parse(PLAIN | {"stages": [STAGE | {"batch_size": 8}, second]}), RunSpec.parse(PLAIN))
    two = frame[frame["method"] == "kd > kd"].iloc[0].to_dict()
    assert (two["batch_size"], two["source"]) == (8, "lexicon")
    assert (two["stage_1.learning_rate"], two["stage_2.learning_rate"]) == (0.01, 0.5)
    assert (two["stage_1.steps"], two["stage_2.steps"], two["stage_1.examples"]) == (10, 20, 100)
    assert pd.isna(two["learning_rate"])
    assert "stage_1.learning_rate" in option_columns(frame)


def test_of_a_tuned_value_the_ratio_of_stages_stays(frame_of):
    pairs = [(0.004, 0.0004), (0.002, 0.0002), (0.004, 0.004), (0.004, 0.002)]
    stages = [[STAGE | {"learning_rate": rate} for rate in pair] for pair in pairs]
    frame = frame_of(*(RunSpec.parse(PLAIN | {"stages": pair}) for pair in stages))
    tuned = frame.assign(tuning="0a1b", **{"tuned.learning_rate": 0.004})
    assert results.configurations(frame).nunique() == 4
    assert results.configurations(tuned).nunique() == 3  # the first two are one arm
    assert set(labels(tuned)) == {
        "kd > kd (stage_2.learning_rate=times 0.1)",
        "kd > kd (stage_2.learning_rate=times 0.5)",
        "kd > kd",
    }


def test_the_order_of_stages_tells_runs_apart(frame_of):
    stages = [STAGE, STAGE | {"learning_rate": 0.5}]
    frame = frame_of(RunSpec.parse(PLAIN | {"stages": stages}), RunSpec.parse(PLAIN | {"stages": stages[::-1]}))
    assert results.configurations(frame).nunique() == 2


@pytest.mark.parametrize("differing", ["source", "split", "validation", "method_options"])
def test_swapped_stages_of_one_method_are_never_averaged(differing, frame_of):
    """As "human first, then synthetic" and the other way round."""
    other: dict[str, Any] = {
        "source": {"data": DATA | {"source": "jsonl", "options": {"path": "synthetic.jsonl"}}},
        "split": {"data": DATA | {"split": "synthetic"}},
        "validation": {"validation": {"source": "lexicon", "split": "test"}},
        "method_options": {"method_options": {"temperature": 2.0}},
    }[differing]
    stages = [STAGE, STAGE | other]
    orders = (stages, stages[::-1], stages[:1] * 2, stages[1:] * 2, stages[:1], stages[1:])
    frame = frame_of(*(RunSpec.parse(PLAIN | {"stages": order}) for order in orders))
    assert results.configurations(frame).nunique() == len(orders)
    assert labels(frame).nunique() == len(orders)


def test_evaluations_that_differ_are_never_averaged(frame_of):
    """Also where only a hash tells them apart: data that changed under one name, or a scorer's code."""
    content: dict[str, Any] = copy.deepcopy(PLAIN)
    content["evaluation"] = [
        PLAIN["evaluation"],
        PLAIN["evaluation"] | {"items": 21},
        {"data": PLAIN["evaluation"]["data"] | {"sha256": "f0"}},
        PLAIN["evaluation"] | {"code": {"scorer.nll": "abc"}},
    ]
    frame = frame_of(RunSpec.parse(content))
    assert frame["run_id"].nunique() == 1
    assert results.configurations(frame).nunique() == labels(frame).nunique() == 4
    assert len(comparable(frame, frame[:1])) == 1


def test_the_evaluation_is_named_by_its_id_only_where_its_options_do_not_tell(frame_of):
    one, other = ({"data": PLAIN["evaluation"]["data"], "items": items} for items in (20, 21))
    frame = frame_of(RunSpec.parse(PLAIN | {"evaluation": [one, other]}))
    assert set(labels(frame)) == {"kd (evaluation_items=20)", "kd (evaluation_items=21)"}


def test_the_batch_size_of_an_evaluation_is_no_option(frame_of):
    one, other = (changed(("evaluation", "batch_size"), size) for size in (8, 64))
    assert one.evaluation[0].eval_id == other.evaluation[0].eval_id
    assert len(frame_of(one, other)) == 1


def test_options_are_named_like_no_metric_or_cost():
    taken = {f"{prefix}{name}" for prefix in ("", "teacher_") for name in SCORERS.names()}
    taken |= {"train_s", "teacher_s", "teacher_tokens", "student_tokens", "generated_tokens", "peak_mem_gib"}
    assert not taken & set(DEFAULTS)
    assert option_columns(pd.DataFrame(columns=sorted(taken))) == []


def test_rows_of_a_comparison_and_of_the_table_agree(frame_of):
    """A row has no default filled in, and a table has."""
    spec = RunSpec.parse(PLAIN)
    frame = frame_of(spec, changed(("stages", 0, "batch_size"), 32))
    [evaluation] = spec.evaluation
    names = {"method": "kd", "student": "small", "teacher": "large", "eval_id": evaluation.eval_id}
    row = pd.DataFrame([names | option_values(spec) | evaluation_values(evaluation)])
    [text] = results.configurations(row)
    assert (results.configurations(frame) == text).tolist().count(True) == 1
