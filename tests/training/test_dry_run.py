"""What a run will do is tried before it trains: a fault costs one line, and what is fine stays as it was."""

import inspect
import json
import shutil
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import LlamaForCausalLM

from studykit import results, study
from studykit.data import Inputs
from studykit.errors import Failure, InputError
from studykit.models import loading
from studykit.spec import RunSpec
from studykit.study.pin import pin
from studykit.training import dry_run as dry
from studykit.training.dry_run import dry_run, try_teacher
from studykit.training.stages import open_teacher_of

SCORED = {"scorers": ("exact_match",), "max_new_tokens": 3, "items": 2}


@pytest.fixture
def resolved(plain_spec, stage, tmp_path):
    """Return a run whose only stage has some settings."""

    def make(method="sft", *, teacher=False, lora=None, scored=False, **settings):
        plain = plain_spec(stage(method, steps=2, **settings), teacher=teacher, lora=lora)
        if scored:
            plain["evaluation"] = {"data": plain["stages"][0]["data"] | {"budget": {}}, **SCORED}
        return pin(RunSpec.parse(plain), Inputs(tmp_path / "results"))

    return make


def load(run):
    return loading.load_student(run.spec.student, run.student, run.spec.seed)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointed": {"gradient_checkpointing": True},
    "bf16": {"bf16": True},
    "packed": {"padding_free": True},
    "lora": {"lora": {"lora_r": 2, "lora_dropout": 0.5}},
    "everything": {"lora": {"lora_r": 2}, "gradient_checkpointing": True, "padding_free": True, "bf16": True},
    "gkd, scored": {"method": "gkd", "teacher": True, "scored": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_student_is_bitwise_what_it_was(name, resolved, tmp_path):
    run = resolved(**SETTINGS[name])
    student = load(run).train()
    (stage,) = run.stages
    before = {name: value.clone() for name, value in student.state_dict().items()}
    buffers = {name: value.clone() for name, value in student.named_buffers()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    dry_run(run, student, tmp_path)
    try_teacher(run, stage, open_teacher_of(run, stage, student) if run.teacher else None)
    assert torch.equal(torch.get_rng_state(), state)
    assert student.training
    assert not student.is_activation_checkpointing
    assert all(p.grad is None for p in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(torch.equal(value, buffers[name]) for name, value in student.named_buffers())
    assert not list(student._forward_hooks) + list(student._forward_pre_hooks)


def test_an_answer_with_a_token_at_which_the_model_is_configured_to_stop_is_refused(resolved, tmp_path):
    run = resolved()
    student: Any = load(run)
    encoded = run.stages[0].data.encoded
    taught = encoded.ids_of(0)[encoded.supervised_of(0)].tolist()
    student.generation_config.eos_token_id = [taught[-1]]
    dry_run(run, student, tmp_path)
    student.generation_config.eos_token_id = taught
    with pytest.raises(InputError, match=r"an answer holds '.*', at which the generation_config\.json of student"):
        dry_run(run, student, tmp_path)


def broken_backward(model):
    """Let the gradient of a layer come out as nan, while its forward pass is right."""
    layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
    layer.register_full_backward_pre_hook(lambda module, gradients: tuple(g * float("nan") for g in gradients))


def test_gradients_that_are_not_finite_are_refused_by_example_and_parameter(resolved, tmp_path):
    run = resolved()
    student = load(run)
    broken_backward(student)
    with pytest.raises(InputError, match=r"stage 1: on examples 'word-\d+' and 'word-\d+' the loss is .* of .*weight"):
        dry_run(run, student, tmp_path)


def test_trained_parameters_that_no_gradient_reaches_are_refused(resolved, tmp_path):
    run = resolved()
    student = load(run).requires_grad_(False)
    student.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    with pytest.raises(InputError, match=r"(does not require grad|no gradient reaches)") as caught:
        dry_run(run, student, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_cache_that_changes_the_answers_is_refused(resolved, tmp_path):
    run = resolved(scored=True)
    student: Any = load(run)
    forward = student.forward

    def wrong(*arguments, **keywords):
        made = forward(*arguments, **keywords)
        return made if keywords.get("past_key_values") is None else type(made)(logits=made.logits * 1.5)

    student.forward = wrong
    student.forward.__signature__ = inspect.signature(forward)
    with pytest.raises(InputError, match=r"generates other tokens with its key-value cache than without"):
        dry_run(run, student, tmp_path)


def test_a_disk_without_room_is_refused(resolved, tmp_path, monkeypatch):
    run = resolved()
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(dry.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"checkpoints and model take about 0\.0 GiB, and 0\.0 are free: make room"):
        dry_run(run, load(run), tmp_path)


@pytest.mark.parametrize(("owner", "lora"), [(LlamaForCausalLM, None), (PeftModel, {"lora_r": 2})])
def test_a_student_that_cannot_be_saved_is_refused_before_training(
    owner, lora, plain_spec, stage, tmp_path, monkeypatch
):
    def refuse(self, *arguments, **keywords):
        raise RuntimeError("Some tensors share memory:\n{'a', 'b'}")

    monkeypatch.setattr(dry, "_READ_BACK", set())
    monkeypatch.setattr(owner, "save_pretrained", refuse)
    with pytest.raises(
        InputError, match=r"could not be saved after its training: Some tensors share memory: \{'a', 'b'\}"
    ):
        study.run(plain_spec(stage(steps=2), teacher=False, lora=lora), study="s", root=tmp_path)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_a_configuration_is_saved_and_read_back_once_in_a_process(tiny_model, tokenizer, monkeypatch):
    read_back = []
    monkeypatch.setattr(dry, "_READ_BACK", set())
    monkeypatch.setattr(dry, "check_round_trip", lambda model, folder, what: read_back.append(model.config.hidden_size))
    for seed, changes in ((0, {}), (1, {}), (0, {"hidden_size": 32})):
        dry._try_saving(tiny_model(seed, **changes), tokenizer, "x")
    assert read_back == [16, 32]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.6, "top_p": 0.9}, None),  # as many published models have it, without do_sample
        ({"num_return_sequences": 2}, "cannot load model .* `num_return_sequences` different than 1"),
    ],
)
def test_a_generation_config_that_transformers_finds_odd_is_kept_or_refused_before_training(
    settings, message, plain_spec, stage, teacher_folder, tmp_path
):
    folder = shutil.copytree(teacher_folder, tmp_path / "student")
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    spec = plain_spec(stage(steps=1), teacher=False, student={"name": str(folder)})
    if message is None:
        assert study.run(spec, study="s", root=tmp_path)["status"] == "done"
        return
    with pytest.raises(InputError, match=message) as caught:
        study.run(spec, study="s", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("metrics.jsonl"))


def test_weights_outlive_a_disk_that_fills_up_while_they_are_saved(plain_spec, stage, tmp_path, monkeypatch):
    monkeypatch.setattr(dry, "_READ_BACK", set())
    spec = plain_spec(stage(steps=2), teacher=False)
    save, calls = LlamaForCausalLM.save_pretrained, []

    def full(self, folder, *arguments, **keywords):
        calls.append(str(folder))
        if len(calls) > 1:  # the first one is the trial
            raise OSError(28, "No space left on device")
        return save(self, folder, *arguments, **keywords)

    with monkeypatch.context() as patched:
        patched.setattr(LlamaForCausalLM, "save_pretrained", full)
        with pytest.raises(Failure, match=r"No space left on device; its weights are kept in checkpoints/"):
            study.run(spec, study="s", root=tmp_path)
    curve = next(tmp_path.rglob("metrics.jsonl"))
    trained = curve.read_text(encoding="utf-8")
    row = study.run(spec, study="s", root=tmp_path)
    assert row["status"] == "done"
    assert curve.read_text(encoding="utf-8") == trained  # nothing was trained again
    assert (results.find_run(tmp_path, row["run_id"]) / "model" / "model.safetensors").exists()
