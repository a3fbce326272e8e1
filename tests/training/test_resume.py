"""A run that was killed, by SIGKILL in the middle of a step, ends with bitwise the weights of one that was not."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from studykit.data import Inputs
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import checkpoints, loop, stages, train
from studykit.training.checkpoints import is_complete

KILLED = -signal.SIGKILL
STEPS = 8


def train_until_killed(spec: RunSpec, folder: Path, root: Path, step: int, stage: int = 0) -> None:
    """Train with a checkpoint at every step and die inside the given step, before its weights are updated."""
    torch.set_num_threads(1)
    compute_loss, stages_seen = loop.compute_loss, []

    def deadly(training, batch, denominator):
        if training not in stages_seen:
            stages_seen.append(training)
        if (len(stages_seen) - 1, training.step) == (stage, step):
            os.kill(os.getpid(), signal.SIGKILL)
        return compute_loss(training, batch, denominator)

    loop.compute_loss = deadly
    train(pin(spec, Inputs(root)), folder, checkpoint_every_s=0.0)


def weights(trained) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trained.model.state_dict().items()}


def assert_bitwise_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [name for name, value in left.items() if not torch.equal(value, right[name])] == []


def steps_logged(folder: Path) -> list[tuple[int, int]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["stage"], line["step"]) for line in lines]


@pytest.fixture
def in_folder(tmp_path, results_root):
    """Return functions that train the same specification in separate folders."""

    def run(spec, name="run", **keywords):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return train(pin(spec, Inputs(results_root)), folder, **keywords)

    return run


VARIANTS = {
    "sft": ({}, {}),
    "accumulation": ({}, {"gradient_accumulation_steps": 2, "batch_size": 2}),
    "lora": ({"lora": {"lora_r": 2, "lora_dropout": 0.2}}, {"learning_rate": 0.05}),
    "taid": ({}, {"method": "kd", "method_options": {"loss": "taid"}}),
    "learned temperature": ({}, {"method": "kd", "method_options": {"loss": "curriculum_temperature"}}),
    "cached teacher": ({"top_k": 8}, {"method": "kd", "method_options": {"loss": "reverse_kl"}}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_and_resumed_is_bitwise_the_same(
    variant, plain_spec, stage, in_folder, in_process, tmp_path, results_root
):
    run, changes = VARIANTS[variant]
    spec = RunSpec.parse(plain_spec(stage(steps=STEPS, **changes), **run))
    whole = in_folder(spec, "whole")
    (tmp_path / "run").mkdir()
    assert in_process(train_until_killed, spec, tmp_path / "run", results_root, 5) == KILLED
    stage_folder = tmp_path / "run" / "checkpoints" / "stage-0"
    assert is_complete(stage_folder / "checkpoint-5")
    resumed = in_folder(spec)
    assert_bitwise_equal(weights(whole), weights(resumed))
    assert steps_logged(tmp_path / "run") == steps_logged(tmp_path / "whole")
    assert steps_logged(tmp_path / "run") == [(0, step) for step in range(1, STEPS + 1)]
    for same in ("student_tokens", "padding_tokens"):
        assert resumed.cost[same] == whole.cost[same] > 0
    assert [p.name for p in stage_folder.iterdir()] == ["finished"]


def test_the_variants_end_with_different_weights(plain_spec, stage, in_folder):
    """Or the test above would compare what does not depend on the state it is about."""
    fixed = {"loss": "taid", "loss_options": {"schedule": "fixed"}}
    ends = [
        weights(in_folder(RunSpec.parse(plain_spec(stage(steps=STEPS, **changes))), str(number)))["lm_head.weight"]
        for number, changes in enumerate([VARIANTS["taid"][1], {"method": "kd", "method_options": fixed}])
    ]
    assert not torch.equal(*ends)


@pytest.mark.parametrize("damage", ["missing state", "missing random state", "truncated state", "no marker"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    damage, plain_spec, stage, in_folder, in_process, tmp_path, results_root
):
    spec = RunSpec.parse(plain_spec(stage("kd", steps=STEPS, method_options={"loss": "taid"})))
    whole = in_folder(spec, "whole")
    (tmp_path / "run").mkdir()
    in_process(train_until_killed, spec, tmp_path / "run", results_root, 5)
    newest = tmp_path / "run" / "checkpoints" / "stage-0" / "checkpoint-5"
    if damage == "truncated state":
        file = newest / "training.pt"
        file.write_bytes(file.read_bytes()[:-100])
    else:
        lost = {"missing state": "training.pt", "missing random state": "process-0.pt"}
        (newest / lost.get(damage, "complete.json")).unlink()
    seen = []
    load = checkpoints.load

    def record(checkpoint, accelerator):
        seen.append((checkpoint.name, [p.name for p in sorted(checkpoint.parent.iterdir()) if p.is_dir()]))
        return load(checkpoint, accelerator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "load", record)
        resumed = in_folder(spec)
    assert seen == [("checkpoint-4", ["checkpoint-4", "damaged-checkpoint-5"])]
    assert_bitwise_equal(weights(whole), weights(resumed))
    assert steps_logged(tmp_path / "run") == [(0, step) for step in range(1, STEPS + 1)]


def test_with_no_whole_checkpoint_the_stage_starts_again(
    plain_spec, stage, in_folder, in_process, tmp_path, results_root
):
    spec = RunSpec.parse(plain_spec(stage(steps=4)))
    whole = in_folder(spec, "whole")
    (tmp_path / "run").mkdir()
    in_process(train_until_killed, spec, tmp_path / "run", results_root, 2)
    for checkpoint in (tmp_path / "run" / "checkpoints" / "stage-0").glob("checkpoint-*"):
        (checkpoint / "complete.json").unlink()
    assert_bitwise_equal(weights(whole), weights(in_folder(spec)))
    assert steps_logged(tmp_path / "run") == [(0, step) for step in range(1, 5)]


@pytest.mark.parametrize("killed_in", [0, 1])
def test_two_stages_resume_in_either(killed_in, plain_spec, stage, in_folder, in_process, tmp_path, results_root):
    stages = [stage(steps=4), stage("kd", steps=4, method_options={"kd_ratio": 0.5})]
    spec = RunSpec.parse(plain_spec(*stages))
    whole = in_folder(spec, "whole")
    (tmp_path / "run").mkdir()
    assert in_process(train_until_killed, spec, tmp_path / "run", results_root, 2, killed_in) == KILLED
    resumed = in_folder(spec)
    assert_bitwise_equal(weights(whole), weights(resumed))
    assert steps_logged(tmp_path / "run") == [(n, step) for n in (0, 1) for step in range(1, 5)]
    assert len(resumed.manifests) == 2
    for name in ("student_tokens", "teacher_tokens"):
        assert resumed.cost[name] == whole.cost[name] > 0


def test_the_second_stage_starts_from_the_first(plain_spec, stage, in_folder):
    one, other = (
        weights(in_folder(RunSpec.parse(plain_spec(first, stage(steps=2, learning_rate=1e-9))), name))
        for name, first in (("a", stage(steps=4)), ("b", stage(steps=5)))
    )
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_a_stage_killed_while_its_end_is_written_is_not_trained_again(plain_spec, stage, in_folder, monkeypatch):
    spec = RunSpec.parse(plain_spec(stage(steps=4)))
    whole = in_folder(spec, "whole")

    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(stages, "mark_complete", fail)
    with pytest.raises(OSError, match="no space"):
        in_folder(spec, checkpoint_every_s=0.0)
    monkeypatch.setattr(stages, "mark_complete", checkpoints.mark_complete)
    steps: list[int] = []
    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda training, batches: (steps.append(1), step(training, batches))[1])
    assert_bitwise_equal(weights(whole), weights(in_folder(spec)))
    assert steps == []


def test_averages_of_several_steps_survive_a_restart_between_two_logs(
    plain_spec, stage, in_folder, monkeypatch, tmp_path
):
    spec = RunSpec.parse(plain_spec(stage(steps=100)))
    in_folder(spec, "whole")
    compute_loss = loop.compute_loss

    def fail(training, batch, denominator):
        if training.step == 5:
            raise RuntimeError("on purpose")
        return compute_loss(training, batch, denominator)

    monkeypatch.setattr(loop, "compute_loss", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        in_folder(spec, checkpoint_every_s=0.0)
    monkeypatch.setattr(loop, "compute_loss", compute_loss)
    in_folder(spec)
    whole, resumed = (
        [json.loads(line) | {"time_s": 0} for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "run")
    )
    assert [line["step"] for line in whole] == list(range(2, 101, 2))
    assert resumed == whole


def test_costs_add_up_over_a_restart(plain_spec, stage, in_folder, in_process, tmp_path, results_root, empty_cache):
    spec = RunSpec.parse(plain_spec(stage("kd", steps=STEPS), top_k=8))
    whole = in_folder(spec, "whole")
    shutil.rmtree(empty_cache)
    (tmp_path / "run").mkdir()
    in_process(train_until_killed, spec, tmp_path / "run", results_root, 5)
    state = torch.load(tmp_path / "run" / "checkpoints" / "stage-0" / "checkpoint-5" / "process-0.pt")
    resumed = in_folder(spec)
    for name in ("student_tokens", "teacher_tokens", "cached_positions"):
        assert resumed.cost[name] == whole.cost[name] > 0
    for name in ("train_s", "teacher_s"):
        assert resumed.cost[name] > state["cost"][name] > 0


def test_preparations_before_the_first_checkpoint_count(
    plain_spec, stage, in_folder, in_process, tmp_path, results_root, empty_cache
):
    spec = RunSpec.parse(plain_spec(stage("kd", steps=2), top_k=8))
    whole = in_folder(spec, "whole")
    shutil.rmtree(empty_cache)
    (tmp_path / "run").mkdir()
    in_process(train_until_killed, spec, tmp_path / "run", results_root, 0)
    assert not list((tmp_path / "run" / "checkpoints" / "stage-0").glob("checkpoint-*"))
    resumed = in_folder(spec)
    for name in ("student_tokens", "teacher_tokens", "cached_positions"):
        assert resumed.cost[name] == whole.cost[name] > 0
    assert resumed.cost["teacher_check_tokens"] > 0 == whole.cost["teacher_check_tokens"]


def test_the_same_specification_gives_the_same_weights_and_another_seed_others(plain_spec, in_folder):
    runs = [weights(in_folder(RunSpec.parse(plain_spec(seed=s)), str(n))) for n, s in enumerate((0, 0, 1))]
    assert_bitwise_equal(runs[0], runs[1])
    assert not torch.equal(runs[0]["lm_head.weight"], runs[2]["lm_head.weight"])
