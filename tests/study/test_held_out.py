"""A run counts the held-out items that it trains on, refuses a held-out split that is none, and leaves items out."""

import json

import pytest

from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study import pin
from studykit.study.arms import arms
from studykit.study.run import run as run_spec


def line(word, answer="K AE T"):
    return {"prompt": f"Pronounce {word}", "completion": answer}


TRAIN = [line(word) for word in ("a b", "b c", "c d", "d e", "e f", "f g", "g h", "h i")]
TEST = [line("a b"), line("C D."), line("e f", "T"), line("z z")]
"""One item as in training, one written differently, one with another answer, and one that is new."""


@pytest.fixture
def source(tmp_path):
    """Write lines to a file and return the data that names it."""

    def write(name, lines):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")
        return {"source": "jsonl", "options": {"path": str(file)}}

    return write


@pytest.fixture
def spec_of(source, plain_spec, stage):
    """Make a specification that trains on eight examples, and is scored on the likelihood of others."""

    def make(train=TRAIN, test=TEST, method="sft", validation=None, **data):
        evaluation = None
        if test is not None:
            data_of_test = source(f"test-{len(test)}-{test[0]['prompt'][-1]}", test)
            evaluation = {"data": data_of_test | {"split": "test"}, "scorers": ["nll"]}
        settings = {"data": source("train", train) | data, "steps": 1}
        if validation is not None:
            settings["validation"] = validation
        return RunSpec.parse(plain_spec(stage(method, **settings), teacher=method != "sft", evaluation=evaluation))

    return make


def test_items_that_are_trained_on_are_counted_logged_once_and_shown(spec_of, tmp_path, caplog):
    row = run_spec(spec_of(), root=tmp_path / "results")
    [file] = (tmp_path / f"results/scratch/runs/{row['run_id']}/evaluations").glob("*/record.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["items_trained_on"] == {"exact": 1, "normalised": 1, "near": 0, "same_prompt": 1}
    assert row["items_trained_on"] == 2
    said = "of 4 held-out items, 1 exact, 1 normalised, 1 same_prompt are trained on too"
    assert [message for message in caplog.messages if "held-out" in message] == [said]


def test_only_examples_that_the_budget_draws_count(spec_of):
    few = spec_of(budget={"examples": 1})
    counts = pin(few).evaluations[0].items_trained_on
    assert counts is not None
    assert counts.exact + counts.normalised + counts.same_prompt <= 1


def test_a_held_out_split_that_is_none_is_refused_and_the_training_split_by_its_name_is_not(spec_of):
    with pytest.raises(InputError, match="all 8 held-out items are trained on too") as caught:
        pin(spec_of(test=[one | {"prompt": one["prompt"].upper()} for one in TRAIN]))
    assert "\n" not in str(caught.value)
    spec = spec_of()
    named = spec.evaluation[0].model_copy(update={"data": spec.stages[0].data})
    counts = pin(spec.model_copy(update={"evaluation": (named,)})).evaluations[0].items_trained_on
    assert counts is not None
    assert counts.exact == 8


def test_decontaminate_leaves_examples_out_before_the_ranking(spec_of):
    drawn = [pin(spec_of(decontaminate=True, budget={"examples": count})).stages[0].data for count in (3, 5)]
    prompts = [[example.messages[0]["content"] for example in data.examples] for data in drawn]
    assert prompts[1][:3] == prompts[0]
    assert set(prompts[1]) == {f"Pronounce {word}" for word in ("b c", "d e", "f g", "g h", "h i")}
    assert [data.manifest["dropped"] for data in drawn] == [{"decontaminate": 3}] * 2
    run = pin(spec_of(decontaminate=True))
    counts = run.evaluations[0].items_trained_on
    assert counts is not None
    assert not any(counts.to_json().values())
    assert run.spec.stages[0].data.sha256 == pin(spec_of()).spec.stages[0].data.sha256
    assert run.run_id != pin(spec_of()).run_id
    assert spec_of(decontaminate=False).run_id == spec_of().run_id


def test_validation_data_is_compared_and_decontaminated_too(spec_of, source):
    validation = source("validation", [line("a b"), line("x y")]) | {"split": "validation"}
    counts = pin(spec_of(method="distillm", validation=validation)).evaluations[0].items_validated_on
    assert counts is not None
    assert counts.exact == 1
    clean = pin(spec_of(method="distillm", validation=validation | {"decontaminate": True}))
    counts = clean.evaluations[0].items_validated_on
    assert counts is not None
    assert not any(counts.to_json().values())
    assert [example.messages[0]["content"] for example in clean.stages[0].validation_examples] == ["Pronounce x y"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test": None}, "stages.0: decontaminate leaves the evaluation's items out, and there is no evaluation"),
        (
            {"test": TRAIN},
            r"no example is left \(source 'jsonl', split 'train'\); filters left out 8 \(decontaminate 8\) of 8",
        ),
        (
            {"budget": {"examples": 6}},
            r"budget of 6 examples is larger than the pool of 5 .*; filters left out 3 \(decontaminate 3\) of 8",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_one_line(settings, message, spec_of):
    with pytest.raises(InputError, match=message) as caught:
        pin(spec_of(decontaminate=True, **settings))
    assert "\n" not in str(caught.value)


def test_held_out_items_are_not_decontaminated_themselves(spec_of):
    spec = spec_of()
    data = spec.evaluation[0].data.model_copy(update={"decontaminate": True})
    with pytest.raises(InputError, match=r"evaluation\.data\.decontaminate is not used"):
        pin(spec.model_copy(update={"evaluation": (spec.evaluation[0].model_copy(update={"data": data}),)}))


def test_what_was_left_out_is_part_of_what_a_run_is(spec_of):
    run, other = pin(spec_of(decontaminate=True)), pin(spec_of(decontaminate=True, test=[line("g h"), line("z z")]))
    assert run.run_id != other.run_id
    assert pin(spec_of(decontaminate=True, test=[*TEST, line("y y")])).run_id == run.run_id
    with pytest.raises(InputError, match="was decontaminated for other held-out items than these: train again"):
        pin(run.spec.model_copy(update={"evaluation": other.spec.evaluation}))


def test_all_arms_of_a_notebook_are_decontaminated():
    shared = {"student": "a", "teacher": "b", "source": "c", "budget_examples": 8, "learning_rate": 0.1}
    made = arms(["sft", "kd"], decontaminate=True, validation_split="validation", **shared)
    stages = [stage for arm in made.values() for stage in arm["stages"]]
    assert all(stage[part]["decontaminate"] for stage in stages for part in ("data", "validation"))
    assert all("decontaminate" not in arm["evaluation"]["data"] for arm in made.values())
