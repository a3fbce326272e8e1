"""A run that DeepSpeed divides among two processes (ZeRO-3): the same steps as on one, also interrupted and resumed."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from two_processes import assert_equal, become, fail, found, interrupt, start_two

from studykit import study
from studykit.models import loading, sharding, zero
from studykit.teacher.live import LiveTeacher
from studykit.training import loop

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")

GENERATING = {"max_new_tokens": 6}
LEARNED: dict[str, Any] = {"method": "kd", "method_options": {"loss": "curriculum_temperature"}}
PHI = {"model_type": "phi", "vocab_size": 85, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
PHI |= {"num_attention_heads": 2, "max_position_embeddings": 128, "tie_word_embeddings": False}  # its head has a bias
CASES: dict[str, dict[str, Any]] = {
    "sft": {"gradient_accumulation_steps": 2, "gradient_checkpointing": True},
    "cached kd": {"method": "kd", "top_k": 8, "method_options": {"kd_ratio": 0.7}},
    "live kd": LEARNED | {"config": {"tie_word_embeddings": True}},
    "gkd": {"method": "gkd", "method_options": GENERATING | {"lmbda": 0.7}},
    "skd": {"method": "skd", "method_options": GENERATING},
    "lora": {"method": "kd", "lora": {"lora_r": 2}},
    "lora on bf16": {"method": "kd", "lora": {"lora_r": 3}},
}
IN_BF16 = ("lora on bf16",)
"""Cases whose frozen weights, the student's base and the teacher, are in bf16, as where a GPU computes in it."""

RESUMED: dict[str, dict[str, Any]] = {
    "weights": LEARNED | {"lr_scheduler_type": "linear", "config": PHI},
    "adapters": {"method": "gkd", "method_options": GENERATING | {"lmbda": 0.7}, "lora": {"lora_r": 2}},
}
DROPPING = {"lora": {"lora_r": 2, "lora_dropout": 0.2}}


@pytest.fixture(scope="module")
def specs(plain_spec, stage, tiny_config, data_file):
    """Return the specification of each case, of those that are interrupted, and of one with all else."""
    data = {"source": "jsonl", "options": {"path": str(data_file)}}

    def make(*stages, lora=None, top_k=None, config=None, **changes):
        evaluation = {"data": data, "items": 4, "batch_size": 3, "max_new_tokens": 6}
        stages = stages or [stage(steps=4, **changes)]
        spec = plain_spec(*stages, lora=lora, top_k=top_k, evaluation=evaluation)
        spec["student"]["random_config"] = tiny_config | (config or {})
        return spec

    validation = data | {"budget": {"examples": 4, "seed": 5}}
    best = {"load_best_model_at_end": True, "eval_steps": 2, "validation": validation}
    mix = [{"data": data | {"budget": {"examples": 16, "seed": 1}}, "weight": 0.25, "method": "kd"}]
    two_stages = make(stage(steps=4, **best), stage("sft", steps=4, mix=mix))
    made = {name: make(**case) for name, case in (CASES | RESUMED).items()}
    return made | {"two stages": two_stages, "dropout": make(**RESUMED["adapters"] | DROPPING)}


def work(rank: int, port: int, specs: dict, root: Path) -> None:
    """Compute the cases as one of two processes."""
    become(rank, port, root)
    os.environ.update({zero.ASKED: "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"})
    study.run(specs["two stages"], study="two", root=root)  # small tensors stay whole
    zero.SETTINGS["stage3_param_persistence_threshold"] = 0
    train_step = loop.train_step
    loop.train_step = lambda training, batches: train_step(divided(training), batches)
    for name in CASES:
        has_bf16(name in IN_BF16)
        study.run(specs[name], study="two", root=root)
    has_bf16(False)
    study.run(specs["dropout"], study="two", root=root)
    for name in (*RESUMED, "dropout"):
        restore = interrupt(fail)
        with pytest.raises(RuntimeError, match="interrupted"):
            study.run(specs[name], study="interrupted", root=root)
        restore()
    study.run(specs["dropout"], study="interrupted", root=root)
    for name in RESUMED:
        study.run(specs[name], study="begun", root=root)
    dist.destroy_process_group()


def has_bf16(has: bool) -> None:
    """Load what is not trained as if the device computed in bf16, or did not."""
    loading.has_bf16 = lambda: has


def divided(training):
    """Return a training whose models have no weights between their passes, and half of them in each process."""
    models = [training.context.student]
    if isinstance(training.teacher, LiveTeacher):  # others are whole while they are captured
        models.append(training.teacher.model)
    for parameter in (parameter for model in models for parameter in model.parameters()):
        assert parameter.numel() == 0
        assert parameter.ds_tensor.numel() == -(-sharding.full_size(parameter) // 2)
    return training


@pytest.fixture(scope="module")
def root(tmp_path_factory, specs):
    """Return the folder of all results: of two processes and of one."""
    root = tmp_path_factory.mktemp("zero")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDYKIT_CACHE", str(root / "cache of one"))
        patch.setattr(loading, "has_bf16", loading.has_bf16)
        restore = interrupt(fail)
        for name in RESUMED:
            with pytest.raises(RuntimeError, match="interrupted"):
                study.run(specs[name], study="begun", root=root)
        restore()
        assert start_two(work, specs, root) == [0, 0]
        for name in RESUMED:
            study.run(specs[name], study="interrupted", root=root)
        for name in (*CASES, *RESUMED, "two stages"):
            has_bf16(name in IN_BF16)
            study.run(specs[name], study="one", root=root)
    return root


@pytest.mark.parametrize("case", [*CASES, "two stages"])
def test_two_processes_equal_one(case, root, specs):
    one, two = (found(root, name, specs, case) for name in ("one", "two"))
    assert_equal(one, two, counted=case != "two stages")  # whose teacher reads a row more: a process without one
    assert two[0]["environment"]["processes"] == 2
    assert two[0]["parameters"] == one[0]["parameters"]


@pytest.mark.parametrize("case", RESUMED)
@pytest.mark.parametrize("name", ["interrupted", "begun"])
def test_a_run_goes_on_with_another_number_of_processes(name, case, root, specs):
    """`interrupted` was begun by two that divide the weights and goes on with one, `begun` the other way round."""
    changed = found(root, name, specs, case)
    assert changed[0]["cost"]["attempts"] == 2
    assert_equal(found(root, "one", specs, case), changed)


def test_interrupted_and_resumed_equals_undisturbed_to_the_last_bit(root, specs):
    resumed, whole = (found(root, name, specs, "dropout") for name in ("interrupted", "two"))
    assert resumed[0]["cost"]["attempts"] == 2
    assert all(torch.equal(value, resumed[2][key]) for key, value in whole[2].items())
    assert [line["loss"] for line in resumed[1]] == [line["loss"] for line in whole[1]]
