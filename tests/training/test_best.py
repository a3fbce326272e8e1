"""The weights of the best validation score instead of the last: kept, resumed after a kill, and where stages start."""

import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch

from studykit import study
from studykit.data import Inputs
from studykit.errors import InputError
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop, stages, train
from studykit.training.best import Best

STEPS = 8


@pytest.fixture
def best_stage(stage, data_file):
    """Make a stage that ends with its best weights, at a learning rate at which they are not the last."""
    validation = {"source": "jsonl", "options": {"path": str(data_file)}, "budget": {"examples": 6, "seed": 5}}

    def make(**changes):
        best = {"load_best_model_at_end": True, "eval_steps": 2, "validation": validation}
        return stage(**{"steps": STEPS, "learning_rate": 0.3, "lr_scheduler_type": "constant"} | best | changes)

    return make


@pytest.fixture
def in_folder(tmp_path, results_root):
    def run(plain, name="run", **keywords):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return train(pin(RunSpec.parse(plain), Inputs(results_root)), folder, **keywords)

    return run


@pytest.fixture
def considered(monkeypatch):
    """Record step, score and weights of every validation score."""
    found, consider = [], Best.consider

    def recording(best, step, score, weights):
        found.append((step, score, {name: value.clone() for name, value in weights().items()}))
        consider(best, step, score, weights)

    monkeypatch.setattr(Best, "consider", recording)
    return found


def weights(trained):
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def same(left, right):
    assert left.keys() >= right.keys()
    assert right
    return all(torch.equal(left[name], value) for name, value in right.items())


BEST = 4


def distance_from_best(training):
    """Stand for the validation score: the weights after step 4 are the best ones."""
    return abs(training.step - BEST)


@pytest.fixture
def best_in_the_middle(monkeypatch):
    """Make weights in the middle of a stage the best ones."""
    monkeypatch.setattr(loop, "validation_score", distance_from_best)


@pytest.mark.parametrize("lora", [None, {"lora_r": 2}])
@pytest.mark.usefixtures("best_in_the_middle")
def test_the_stage_ends_with_the_weights_of_the_best_score(plain_spec, best_stage, in_folder, considered, lora):
    trained = in_folder(plain_spec(best_stage(), teacher=False, lora=lora))
    assert [step for step, *_ in considered] == [2, 4, 6, 8]
    [kept] = [kept for step, _, kept in considered if step == BEST]
    assert same(weights(trained), kept)
    assert not same(weights(trained), considered[-1][2])
    assert (trained.manifests[0]["best_step"], trained.manifests[0]["best_validation"]) == (BEST, 0)


def test_the_score_is_the_loss_on_the_validation_data(plain_spec, best_stage, in_folder, considered, monkeypatch):
    losses, validation_loss = [], loop.validation_loss
    monkeypatch.setattr(
        loop, "validation_loss", lambda training: losses.append(validation_loss(training)) or losses[-1]
    )
    trained = in_folder(plain_spec(best_stage(), teacher=False))
    assert [score for _, score, _ in considered] == losses
    assert trained.manifests[0]["best_validation"] == min(losses)


def test_looking_changes_no_step(plain_spec, best_stage, in_folder, considered):
    in_folder(plain_spec(best_stage(), teacher=False))
    plain = dict.fromkeys(("load_best_model_at_end", "eval_steps", "validation"))
    without = in_folder(plain_spec(best_stage(**plain), teacher=False), "without")
    assert same(weights(without), considered[-1][2])


def test_the_metric_may_be_a_scorer_and_the_score_is_logged(plain_spec, best_stage, in_folder, tmp_path, considered):
    spec = plain_spec(best_stage(metric_for_best_model="token_error_rate"), teacher=False)
    trained = in_folder(spec)
    scores = [score for _, score, _ in considered]
    assert trained.manifests[0]["best_validation"] == min(scores)
    assert trained.manifests[0]["best_step"] == 2 * (1 + scores.index(min(scores)))  # the first of equal ones
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["validation_token_error_rate"] for line in lines if "validation_token_error_rate" in line] == scores


def test_a_higher_score_is_better_with_a_scorer_that_measures_so():
    spec = RunSpec.parse(_plain(metric_for_best_model="exact_match")).stages[0]
    best = Best(spec)
    for step, score in ((1, 0.1), (2, 0.3), (3, 0.3), (4, math.nan)):
        best.consider(step, score, dict)
    assert (best.step, best.score) == (2, 0.3)


def _plain(**changes):
    stage = {"data": {"source": "lexicon"}, "method": "sft", "steps": 4, "learning_rate": 0.1}
    return {"student": {"name": "a"}, "stages": [stage | {"load_best_model_at_end": True} | changes]}


def test_scores_come_every_tenth_of_the_steps_and_after_the_last_one():
    spec = RunSpec.parse(_plain(steps=25)).stages[0]
    assert [step for step in range(1, 26) if Best(spec).is_due(step)] == [*range(2, 25, 2), 25]


def train_until_killed(plain, folder, root, step):
    torch.set_num_threads(1)
    compute_loss = loop.compute_loss

    def deadly(training, batch, denominator):
        if training.step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_loss(training, batch, denominator)

    loop.compute_loss, loop.validation_score = deadly, distance_from_best
    train(pin(RunSpec.parse(plain), Inputs(root)), Path(folder), checkpoint_every_s=0.0)


@pytest.mark.parametrize("lora", [None, {"lora_r": 2, "lora_dropout": 0.2}])
@pytest.mark.usefixtures("best_in_the_middle")
def test_killed_and_resumed_ends_with_bitwise_the_same_weights(
    plain_spec, best_stage, in_folder, in_process, tmp_path, results_root, lora
):
    changes = {"method": "kd", "method_options": {"loss": "curriculum_temperature"}}
    plain = plain_spec(best_stage(**changes), lora=lora)
    whole = in_folder(plain, "whole")
    (tmp_path / "killed").mkdir()  # after the best step: its weights are known from the checkpoint alone
    assert in_process(train_until_killed, plain, tmp_path / "killed", results_root, BEST + 3) == -signal.SIGKILL
    resumed = in_folder(plain, "killed", checkpoint_every_s=0.0)
    assert same(weights(resumed), weights(whole))
    assert resumed.manifests[0]["best_step"] == whole.manifests[0]["best_step"] == BEST


@pytest.mark.usefixtures("best_in_the_middle")
def test_the_next_stage_starts_from_the_best_weights(plain_spec, best_stage, stage, in_folder, considered, monkeypatch):
    started, train_stage = [], stages.train_stage

    def recording(job, trained, *more):
        started.append(weights(trained))
        return train_stage(job, trained, *more)

    monkeypatch.setattr(stages, "train_stage", recording)
    in_folder(plain_spec(best_stage(), stage(steps=1), teacher=False))
    assert same(started[1], next(kept for step, _, kept in considered if step == BEST))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"validation": None}, "load_best_model_at_end computes a validation score"),
        ({"load_best_model_at_end": None}, "eval_steps changes nothing without load_best_model_at_end"),
        ({"metric_for_best_model": "exact_mach"}, "unknown scorer 'exact_mach'; did you mean 'exact_match'"),
        ({"metric_for_best_model": "teacher_agreement"}, "needs a teacher or choices"),
        ({"eval_steps": 0}, "eval_steps"),
    ],
)
def test_what_cannot_be_scored_is_refused(plain_spec, best_stage, results_root, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        pin(RunSpec.parse(plain_spec(best_stage(**changes), teacher=False)), Inputs(results_root))


def test_weights_are_not_chosen_by_held_out_items(plain_spec, best_stage, data_file, tmp_path):
    evaluation = {"data": {"source": "jsonl", "options": {"path": str(data_file)}, "split": "test"}}
    with pytest.raises(InputError, match="held-out items are among the validation data"):
        study.run(plain_spec(best_stage(), teacher=False, evaluation=evaluation), root=tmp_path)


def test_ids_of_runs_without_it_are_what_they_were():
    off = {"load_best_model_at_end": False, "eval_steps": None, "metric_for_best_model": "loss"}
    without = RunSpec.parse(_plain(load_best_model_at_end=None))
    assert RunSpec.parse(_plain(**off)).run_id == without.run_id
    assert RunSpec.parse(_plain(metric_for_best_model="loss")).run_id == RunSpec.parse(_plain()).run_id
    assert RunSpec.parse(_plain()).run_id != without.run_id
