"""The manifest says what was trained on: answers by who wrote them, and how many a model generated, ended and cut."""

import json

import pytest

from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import train


@pytest.fixture
def manifest_of(plain_spec, results_root, tmp_path):
    """Train one stage and return its manifest."""

    def make(stage, **changes):
        run = pin(RunSpec.parse(plain_spec(stage) | changes), Inputs(results_root))
        return train(run, tmp_path).manifests[0]

    return make


def test_answers_of_the_data_are_counted_by_annotator(manifest_of, stage, examples, tmp_path):
    annotators = ["human", "gpt-x", "gpt-x", "human", "human"]
    lines = [
        {"messages": list(example.messages), "annotator": who}
        for example, who in zip(examples[:5], annotators, strict=True)
    ]
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = {"source": "jsonl", "options": {"path": str(file)}}
    manifest = manifest_of(stage(data=data, steps=5, batch_size=2))  # each example twice
    assert manifest["trained_on"] == {"gpt-x": 4, "human": 6}
    assert "generated_answers" not in manifest


@pytest.mark.parametrize("train_on_cut", [False, True])
def test_answers_of_a_teacher_are_its_own_and_those_that_were_cut_are_left_out(train_on_cut, manifest_of, stage):
    options = {"max_new_tokens": 4, "train_on_cut": train_on_cut}
    manifest = manifest_of(stage("seqkd", method_options=options, steps=12), teacher={"name": "lexicon/teacher-a"})
    ended, cut = manifest["ended_answers"], manifest["cut_answers"]
    assert min(ended, cut) > 0
    assert ended + cut == manifest["generated_answers"] == manifest["seen_examples"] == 24
    assert manifest["trained_on"] == {"lexicon/teacher-a": 48 if train_on_cut else 2 * ended}
    assert manifest["budget_by_annotator"] == {"human": 24}


def test_a_mixture_of_answers_is_counted_by_its_parts(manifest_of, stage):
    options = {"max_new_tokens": 4, "lmbda": 0.5}
    trained_on = manifest_of(stage("gkd", method_options=options, steps=12))["trained_on"]
    assert set(trained_on) == {"human", "the student"}
    assert sum(trained_on.values()) == 48


def test_a_teacher_that_never_ends_an_answer_stops_the_training(manifest_of, stage, data_file, monkeypatch):
    monkeypatch.setattr("studykit.rollouts.teacher._ALL_CUT", 8)
    options = {"max_new_tokens": 1}
    with pytest.raises(ValueError, match="ended none of its first 8 answers within 1 tokens"):
        manifest_of(stage("seqkd", method_options=options), teacher={"name": "lexicon/teacher-a"})
