"""Wrong input to a run or a comparison is one line, and leaves nothing."""

import json

import pytest
import torch
from transformers import get_scheduler

from studykit import study
from studykit.errors import InputError
from studykit.study.checks import schedules


@pytest.fixture
def evaluation(data_file):
    return {"data": {"source": "jsonl", "options": {"path": str(data_file)}}, "items": 6, "max_new_tokens": 4}


def files_under(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def changed(path: str, value):
    """Return a function that sets one entry of a plain specification, given by its dotted path."""

    def change(plain):
        *parents, last = path.split(".")
        place = plain
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        place[last] = value
        return plain

    return change


def drawn(budget):
    """Return a function that lets a budget draw the held-out items."""

    def change(plain):
        plain["evaluation"]["items"] = None
        plain["evaluation"]["data"]["budget"] = budget
        return plain

    return change


BAD = {
    "method": (changed("stages.0.method", "kdd"), "unknown method 'kdd'; did you mean 'kd'"),
    "option": (changed("stages.0.method_options", {"temprature": 2}), "did you mean 'temperature'"),
    "loss": (changed("stages.0.method_options", {"loss": "forward_k"}), "did you mean 'forward_kl'"),
    "loss option": (
        changed("stages.0.method_options", {"loss": "jsd", "loss_options": {"bet": 1}}),
        "did you mean 'beta'",
    ),
    "kd_ratio": (
        changed("stages.0.method_options", {"kd_ratio": 2}),
        "kd_ratio must be less than or equal to 1, received 2",
    ),
    "key": (changed("stages.0.step", 3), "did you mean 'steps'"),
    "evaluation tokens": (changed("evaluation.data.budget", {"tokens": 3}), "counts examples"),
    "two numbers of items": (changed("evaluation.data.budget", {"examples": 3}), "not both"),
    "items by a model": (drawn({"examples": 3, "sampler": "teacher_nll"}), "ranks by a model"),
    "a draw of all": (drawn({"sampler": "stratified"}), "draws nothing without examples"),
    "a draw of too many": (drawn({"examples": 41}), "41 examples is larger than the pool of 40"),
    "a draw by an unknown sampler": (drawn({"examples": 4, "sampler": "unifrom"}), "did you mean 'uniform'"),
    "value": (changed("stages.0.steps", 0), "stages.0.steps"),
    "schedule": (changed("stages.0.lr_scheduler_type", "cosin"), "did you mean 'cosine'"),
    "schedule with settings": (
        changed("stages.0.lr_scheduler_type", "warmup_stable_decay"),
        "unknown lr_scheduler_type",
    ),
    "no teacher": (changed("teacher", None), "kd needs a teacher: name one"),
    "teacher": (changed("teacher.name", "lexicon/teacher-z"), "did you mean 'lexicon/teacher-"),
    "teacher folder": (changed("teacher.name", "/nowhere/teacher"), "cannot load the tokenizer of '/nowhere/teacher'"),
    "student run": (changed("student.name", "0123456789ab"), "run 0123456789ab has no saved model"),
    "architecture": (changed("student.random_config.model_type", "lama"), "did you mean 'llama'"),
    "sampler": (changed("stages.0.data.budget.sampler", "unifrom"), "did you mean 'uniform'"),
    "source": (changed("stages.0.data.source", "jsonll"), "did you mean 'jsonl'"),
    "source option": (changed("stages.0.data.options", {"pth": "x"}), "did you mean 'path'"),
    "file": (changed("stages.0.data.options", {"path": "/nowhere.jsonl"}), "cannot read /nowhere.jsonl"),
    "budget": (changed("stages.0.data.budget.examples", 41), "41 examples is larger than the pool of 40"),
    "token budget": (changed("stages.0.data.budget", {"tokens": 10**6}), "larger than the pool's"),
    "empty token budget": (changed("stages.0.data.budget", {"tokens": 1}), "is empty: the first example has"),
    "length": (changed("stages.0.max_length", 8), "longer than max_length 8"),
    "scorer": (changed("evaluation.scorers", ["exact_matc"]), "did you mean 'exact_match'"),
    "items": (changed("evaluation.items", 41), "asks for 41 items; the split has 40"),
}


@pytest.mark.parametrize("name", schedules())
def test_every_schedule_that_is_accepted_needs_no_settings(name):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    schedule = get_scheduler(name, optimizer, num_warmup_steps=2, num_training_steps=10)
    assert len(schedule.get_last_lr()) == 1


@pytest.mark.parametrize("fault", BAD)
def test_wrong_input_is_one_line_and_leaves_nothing(fault, plain_spec, stage, evaluation, tmp_path):
    change, message = BAD[fault]
    plain = json.loads(json.dumps(plain_spec(stage("kd"), evaluation=evaluation)))
    with pytest.raises(InputError, match=message) as caught:
        study.run(change(plain), root=tmp_path)
    assert "\n" not in str(caught.value)
    assert files_under(tmp_path) == []


def test_a_teacher_with_another_tokenizer_leaves_nothing(plain_spec, stage, teacher_folder, tmp_path):
    other = tmp_path / "teacher"
    other.mkdir()
    for file in teacher_folder.iterdir():
        content = file.read_bytes()
        other.joinpath(file.name).write_bytes(
            content.replace(b'"AE"', b'"ae"') if "tokenizer" in file.name else content
        )
    plain = plain_spec(stage("kd"))
    plain["teacher"] = {"name": str(other)}
    with pytest.raises(InputError, match="different tokenizers"):
        study.run(plain, root=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_one_wrong_arm_keeps_the_others_from_starting(plain_spec, stage, tmp_path):
    arms = {"a": plain_spec(), "b": plain_spec(stage("kd"), teacher=False)}
    with pytest.raises(InputError, match="needs a teacher"):
        study.compare(arms, root=tmp_path)
    assert files_under(tmp_path) == []


def test_a_folded_teacher_is_refused_where_categories_must_be_shared(plain_spec, stage, tmp_path):
    plain = plain_spec(stage("kd", method_options={"loss": "comparative"}), top_k=4)
    with pytest.raises(InputError, match="top_k"):
        study.run(plain, root=tmp_path)
    assert files_under(tmp_path) == []


def test_a_folder_that_is_not_ours_is_left_alone(plain_spec, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("draft", encoding="utf-8")
    with pytest.raises(InputError, match="not a studykit study"):
        study.run(plain_spec(), study="s", root=tmp_path)
    assert files_under(tmp_path) == ["s", "s/thesis.txt"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden"])
def test_a_study_is_a_plain_folder_name(name, plain_spec, tmp_path):
    with pytest.raises(InputError, match="plain folder name"):
        study.run(plain_spec(), study=name, root=tmp_path / "results")
    assert files_under(tmp_path) == []
