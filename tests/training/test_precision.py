"""Mixed precision as the stage specifies, the device, and on a GPU batches that are copied while it computes."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from studykit import head
from studykit.collate import PlannedBatches, collate
from studykit.data import Inputs
from studykit.models import loading
from studykit.models.projection import linear
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import loop, state, train


def test_on_a_gpu_batches_are_made_ahead_in_pinned_memory(encoded):
    planned = PlannedBatches(encoded, [np.arange(4)] * 6, 0)
    gpu: Any = SimpleNamespace(device=torch.device("cuda"), process_index=0, num_processes=1)
    loader = loop.load_batches(planned, 2, gpu)
    assert loader.pin_memory
    assert 1 <= loader.num_workers <= 2
    assert loader.prefetch_factor is not None
    assert loader.prefetch_factor > 1
    assert len(loader) == 4


def test_on_a_cpu_no_other_process_makes_batches(encoded):
    loader = loop.load_batches(PlannedBatches(encoded, [np.arange(4)] * 6, 0), 0, Accelerator(cpu=True))
    assert (loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (0, None, False)


def test_batches_are_copied_to_the_device_without_waiting(make_training, tiny_model, encoded, monkeypatch):
    training, planned = make_training(tiny_model(), [np.arange(4)])
    waited = []
    copy = type(planned[0]).to

    def record(batch, device, *, non_blocking=False):
        waited.append(not non_blocking)
        return copy(batch, device, non_blocking=non_blocking)

    monkeypatch.setattr(type(planned[0]), "to", record)
    loop.choose_sequences(training, planned[0])
    assert waited == [False]


@pytest.mark.parametrize(
    ("gpu", "bf16", "expected"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True), (False, False, False)],
)
def test_bf16_is_the_default_on_gpus_that_have_it(gpu, bf16, expected, make_training, tiny_model, monkeypatch):
    monkeypatch.setattr(state, "has_bf16", lambda: gpu)
    assert make_training(tiny_model(), [np.arange(4)], bf16=bf16)[0].bf16 is expected


def test_a_gpu_that_imitates_bf16_does_not_use_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for imitates in (False, True):
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, imitates=imitates: including_emulation or not imitates,
        )
        assert loading.has_bf16() is not imitates
        assert loading._frozen_dtype() == (torch.float32 if imitates else torch.bfloat16)


@pytest.mark.parametrize(("kind", "expected"), [(None, "cpu"), ("mps", "cpu"), ("cuda", "cuda")])
def test_the_device_is_one_that_is_there_and_can_do_what_is_needed(kind, expected, monkeypatch):
    def current(check_available=False):
        assert check_available, "a build for CUDA names it on machines without"
        return None if kind is None else torch.device(kind)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    assert loading.device().type == expected


def test_batches_made_ahead_change_nothing_also_after_a_restart(plain_spec, stage, tmp_path, monkeypatch):
    spec, ends = RunSpec.parse(plain_spec(stage(gradient_accumulation_steps=2))), []
    resolved = pin(spec, Inputs(tmp_path / "results"))
    compute_loss, load_batches = loop.compute_loss, loop.load_batches

    def fail(training, batch, denominator):
        if training.step == 3:
            raise RuntimeError("on purpose")
        return compute_loss(training, batch, denominator)

    def load_ahead(planned, done, accelerator):
        batches = load_batches(planned, done, accelerator).dataset
        return torch.utils.data.DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)

    ends.append(train(resolved, tmp_path / "plain").model.state_dict())
    monkeypatch.setattr(loop, "load_batches", load_ahead)
    ends.append(train(resolved, tmp_path / "ahead").model.state_dict())
    monkeypatch.setattr(loop, "compute_loss", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        train(resolved, tmp_path / "restarted", checkpoint_every_s=0.0)
    monkeypatch.setattr(loop, "compute_loss", compute_loss)
    ends.append(train(resolved, tmp_path / "restarted").model.state_dict())
    for end in ends[1:]:
        assert all(torch.equal(value, end[name]) for name, value in ends[0].items())


@pytest.mark.parametrize("method", ["sft", "kd"])
def test_bf16_trains_on_a_cpu_and_ends_near_float32(method, plain_spec, stage, tmp_path):
    ends, seen = [], []
    for bf16 in (None, True):
        spec = RunSpec.parse(plain_spec(stage(method, bf16=bf16, steps=12)))
        trained = train(pin(spec, Inputs(tmp_path / "results")), tmp_path / str(bf16))
        ends.append(torch.cat([p.detach().flatten() for p in trained.model.parameters()]))
        lines = (tmp_path / str(bf16) / "metrics.jsonl").read_text().splitlines()
        seen.append([json.loads(line)["loss"] for line in lines])
        assert all(p.dtype == torch.float32 for p in trained.model.parameters())
    assert not torch.equal(*ends)
    assert seen[1] == pytest.approx(seen[0], rel=0.02)
    assert seen[1][-1] < 0.9 * seen[1][0]


@pytest.mark.parametrize("bf16", [True, False])
def test_the_products_of_the_head_have_the_precision_of_the_stage(
    bf16, make_training, take_steps, tiny_model, encoded, monkeypatch
):
    dtypes = []
    monkeypatch.setattr(head, "linear", lambda part, *rest: dtypes.append(part.dtype) or linear(part, *rest))
    training, planned = make_training(tiny_model(), [np.arange(4)], bf16=bf16)
    take_steps(training, planned)
    loop.cross_entropy(training, collate(encoded, np.arange(4), 0))
    assert dtypes == [torch.bfloat16 if bf16 else torch.float32] * 2


def test_the_loss_in_bf16_agrees_loosely_with_float32(make_training, tiny_model, encoded, tokenizer):
    batch, losses, rounded = collate(encoded, [0, 6, 13], tokenizer.pad_token_id), [], []
    for bf16 in (None, True):
        training, _ = make_training(tiny_model(seed=3, spread=20.0), [np.arange(4)], bf16=bf16)
        layer = training.context.student.model.layers[0].mlp.down_proj
        layer.register_forward_hook(lambda module, inputs, output: rounded.append(output.dtype))
        losses.append(loop.compute_loss(training, batch, torch.tensor(len(batch.target)))[0].item())
    assert rounded == [torch.float32, torch.bfloat16]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_rollout_runs_the_student_and_nothing_else_in_the_precision_of_the_stage(make_training, tiny_model):
    """A teacher keeps the precision of its weights, wherever a rollout calls it."""
    training, planned = make_training(tiny_model(), [np.arange(4)], bf16=True)
    other, dtypes = tiny_model(seed=7), []

    def rollout(batch, context):
        for model in (context.student, other):
            dtypes.append(model.model(batch.input_ids).last_hidden_state.dtype)  # not the model's own forward pass
            layer = model.model.layers[0].mlp.down_proj
            handle = layer.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
            model(batch.input_ids)
            handle.remove()
        return batch

    training.learners[0].rollout = rollout
    loop.choose_sequences(training, planned[0])
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32, torch.float32]


def test_each_stage_has_its_own_precision_and_no_later_one(plain_spec, stage, tmp_path, monkeypatch):
    rounded = []
    compute_loss = loop.compute_loss

    def record(training, batch, denominator):
        layer = training.student.model.layers[0].mlp.down_proj
        handle = layer.register_forward_hook(lambda module, inputs, output: rounded.append(output.dtype))
        result = compute_loss(training, batch, denominator)
        handle.remove()
        return result

    monkeypatch.setattr(loop, "compute_loss", record)
    stages = [stage(steps=1, bf16=bf16) for bf16 in (None, True, False, True)]
    resolved = pin(RunSpec.parse(plain_spec(*stages)), Inputs(tmp_path / "results"))
    trained = train(resolved, tmp_path)
    assert rounded == [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]
    model, ids = trained.model, torch.ones(1, 3, dtype=torch.long)
    again = train(resolved, tmp_path).model  # loads finished stages
    assert torch.equal(model(ids).logits, again(ids).logits)
