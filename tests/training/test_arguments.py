"""What the Trainer is told: bf16 when asked for, and on a GPU batches that are copied while it computes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from studykit import head
from studykit.collate import collate
from studykit.data import Inputs
from studykit.models import loading
from studykit.models.projection import linear
from studykit.spec import RunSpec, Stage
from studykit.study.pin import pin
from studykit.training import stages, train
from studykit.training.loop import DistillTrainer


@pytest.fixture
def told(monkeypatch, stage, tmp_path):
    """Return the arguments that a stage gives to the Trainer, on a machine with or without a GPU."""

    def make(gpu, **changes):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpu)
        monkeypatch.setattr(stages, "device", lambda: torch.device("cuda" if gpu else "cpu"))
        monkeypatch.setattr(stages, "TrainingArguments", lambda **words: SimpleNamespace(n_gpu=4 * gpu, **words))
        return stages._arguments(Stage.model_validate(stage(**changes)), 0, tmp_path)

    return make


def test_on_a_gpu_batches_are_made_ahead_in_pinned_memory_and_copied_without_waiting(told):
    words = told(True)
    assert words.dataloader_pin_memory
    assert words.accelerator_config == {"non_blocking": True}
    assert 1 <= words.dataloader_num_workers <= 2
    assert words.dataloader_prefetch_factor > 1
    assert not words.use_cpu
    assert words._n_gpu == 1


def test_on_a_cpu_nothing_runs_beside(told):
    words = told(False)
    assert not words.dataloader_pin_memory
    assert words.accelerator_config == {"non_blocking": False}
    assert words.dataloader_num_workers == 0
    assert words.dataloader_prefetch_factor is None
    assert words.use_cpu


@pytest.mark.parametrize(
    ("gpu", "asked", "expected"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True), (False, False, False)],
)
def test_bf16_is_a_matter_of_the_gpu_unless_asked_for(gpu, asked, expected, told):
    assert told(gpu, bf16=asked).bf16 is expected


def test_a_gpu_that_imitates_bf16_is_not_asked_for_it(told, monkeypatch):
    assert told(True).bf16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert loading.has_bf16() is False
    assert loading._frozen_dtype() == torch.float32


@pytest.mark.parametrize(("kind", "expected"), [(None, "cpu"), ("mps", "cpu"), ("cuda", "cuda")])
def test_the_device_is_one_that_is_there_and_can_do_what_is_needed(kind, expected, monkeypatch):
    def current(check_available=False):
        assert check_available, "a build for CUDA names it on machines without"
        return None if kind is None else torch.device(kind)

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    assert loading.device().type == expected


def test_the_words_reach_the_loader(make_trainer, tiny_model):
    trainer = make_trainer(tiny_model(), [np.arange(4)] * 6)
    trainer.args.dataloader_num_workers, trainer.args.dataloader_prefetch_factor = 2, 3
    trainer.accelerator.prepare = lambda loader: loader
    loader = trainer.get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.pin_memory) == (2, 3, False)


def test_batches_made_ahead_change_nothing_also_after_a_restart(plain_spec, stage, tmp_path, monkeypatch):
    spec, ends = RunSpec.parse(plain_spec(stage(gradient_accumulation_steps=2))), []
    compute_loss, arguments = DistillTrainer.compute_loss, stages._arguments

    def fail(self, *words, **more):
        if self.state.global_step == 3:
            raise RuntimeError("on purpose")
        return compute_loss(self, *words, **more)

    def ahead(*words):
        made = arguments(*words)
        made.dataloader_num_workers, made.dataloader_prefetch_factor = 1, 4
        return made

    ends.append(train(pin(spec, Inputs(tmp_path / "results")), tmp_path / "plain").model.state_dict())
    monkeypatch.setattr(stages, "_arguments", ahead)
    ends.append(train(pin(spec, Inputs(tmp_path / "results")), tmp_path / "ahead").model.state_dict())
    monkeypatch.setattr(DistillTrainer, "compute_loss", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        train(pin(spec, Inputs(tmp_path / "results")), tmp_path / "restarted", checkpoint_every_s=0.0)
    monkeypatch.setattr(DistillTrainer, "compute_loss", compute_loss)
    ends.append(train(pin(spec, Inputs(tmp_path / "results")), tmp_path / "restarted").model.state_dict())
    for end in ends[1:]:
        assert all(torch.equal(value, end[name]) for name, value in ends[0].items())


@pytest.mark.parametrize("method", ["sft", "kd"])
def test_bf16_trains_on_a_cpu_and_ends_near_float32(method, plain_spec, stage, tmp_path):
    ends, seen = [], []
    for asked in (None, True):
        spec = RunSpec.parse(plain_spec(stage(method, bf16=asked, steps=12)))
        trained = train(pin(spec, Inputs(tmp_path / "results")), tmp_path / str(asked))
        ends.append(torch.cat([p.detach().flatten() for p in trained.model.parameters()]))
        lines = (tmp_path / str(asked) / "metrics.jsonl").read_text().splitlines()
        seen.append([json.loads(line)["loss"] for line in lines])
        assert all(p.dtype == torch.float32 for p in trained.model.parameters())
    assert not torch.equal(*ends)
    assert seen[1] == pytest.approx(seen[0], rel=0.02)
    assert seen[1][-1] < 0.9 * seen[1][0]


@pytest.mark.parametrize("asked", [True, False])
def test_the_heads_products_are_computed_in_what_was_asked_for(asked, make_trainer, tiny_model, encoded, monkeypatch):
    """The Trainer itself puts autocast around the model's pass alone."""
    taken = []
    monkeypatch.setattr(head, "linear", lambda part, *rest: taken.append(part.dtype) or linear(part, *rest))
    trainer = make_trainer(tiny_model(), [np.arange(4)], bf16=asked)
    trainer.train()
    trainer.cross_entropy(collate(encoded, np.arange(4), 0))
    assert taken == [torch.bfloat16 if asked else torch.float32] * 2


def test_the_heads_loss_in_bf16_agrees_loosely_with_float32(make_trainer, tiny_model, encoded, tokenizer):
    batch, losses, rounded = collate(encoded, [0, 6, 13], tokenizer.pad_token_id), [], []
    for asked in (None, True):
        trainer = make_trainer(tiny_model(seed=3, spread=20.0), [np.arange(4)], bf16=asked)
        model = trainer.accelerator.prepare(trainer.model)
        layer = model.model.layers[0].mlp.down_proj
        layer.register_forward_hook(lambda module, inputs, output: rounded.append(output.dtype))
        losses.append(trainer.compute_loss(model, vars(batch)).item())
    assert rounded == [torch.float32, torch.bfloat16]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_each_stage_has_its_own_precision_and_leaves_none_behind(plain_spec, stage, tmp_path, monkeypatch):
    rounded = []
    compute_loss = DistillTrainer.compute_loss

    def metrics(self, model, *words, **more):
        layer = model.model.layers[0].mlp.down_proj
        handle = layer.register_forward_hook(lambda module, inputs, output: rounded.append(output.dtype))
        loss = compute_loss(self, model, *words, **more)
        handle.remove()
        return loss

    monkeypatch.setattr(DistillTrainer, "compute_loss", metrics)
    stages = [stage(steps=1, bf16=asked) for asked in (None, True, False, True)]
    run = pin(RunSpec.parse(plain_spec(*stages)), Inputs(tmp_path / "results"))
    trained = train(run, tmp_path)
    assert rounded == [torch.float32, torch.bfloat16, torch.float32, torch.bfloat16]
    model, ids = trained.model, torch.ones(1, 3, dtype=torch.long)
    again = train(
        pin(RunSpec.parse(plain_spec(*stages)), Inputs(tmp_path / "results")), tmp_path
    ).model  # reads finished stages
    assert torch.equal(model(ids).logits, again(ids).logits)
