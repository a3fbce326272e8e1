"""What is saved is what is read back, or the student is refused before it is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from studykit.errors import InputError
from studykit.models.loading import load_student
from studykit.models.names import Models
from studykit.models.round_trip import check_adapters, check_round_trip
from studykit.models.small_copy import small_copy
from studykit.spec import Lora, Student
from studykit.training import dry_run as dry
from tools.small_models import random_model, small_config

LOST = r"transformers \S+ loads other values of model\.embed_tokens\.weight than it saves, so what is trained"


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "mixtral", "gpt2", "mamba"])
def test_a_model_survives(model_type, tmp_path):
    check_round_trip(random_model(small_config(model_type)), tmp_path, "student 'x'")


@pytest.mark.parametrize("make", [lambda model: model, small_copy], ids=["itself", "small copy"])
def test_a_class_that_loads_other_weights_is_refused(make, tmp_path):
    model: Any = make(random_model(small_config("youtu")))  # loading sets the padding token's row to zero
    with pytest.raises(InputError, match=LOST) as caught:
        check_round_trip(model, tmp_path, "student 'x'")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_saved_are_seen(tmp_path, monkeypatch):
    model = random_model(small_config("llama"))
    save = LlamaForCausalLM.save_pretrained

    def without_the_norm(self, folder):
        save(self, folder)
        file = Path(folder) / "model.safetensors"
        weights = load_file(file)
        weights["model.norm.weight"] *= 2
        save_file(weights, file, metadata={"format": "pt"})

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", without_the_norm)
    with pytest.raises(InputError, match=r"other values of model\.norm\.weight"):
        check_round_trip(model, tmp_path, "student 'x'")


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma3_text", "phi3", "deepseek_v3", "gpt2", "rwkv"])
def test_a_small_copy_is_of_the_same_class_and_small(model_type):
    model: Any = random_model(small_config(model_type))
    small: Any = small_copy(model)
    assert type(small) is type(model)
    assert small.config.tie_word_embeddings == model.config.tie_word_embeddings
    assert sum(p.numel() for p in small.parameters()) < 500_000


def test_a_class_that_refuses_a_small_configuration_has_no_small_copy(monkeypatch):
    model: Any = random_model(small_config("llama"))
    monkeypatch.setattr(type(model.config), "from_dict", lambda fields: 1 / 0)
    assert small_copy(model) is None


@pytest.fixture
def adapted(tiny_config):
    """Return a student with fresh adapters."""
    student = Student(name="lexicon/tokenizer", random_config=tiny_config, lora=Lora(lora_r=2))
    return load_student(student, Models().find(student.name))


def test_adapters_survive_and_the_student_stays_as_it_was(adapted, tmp_path):
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    state = torch.get_rng_state()
    check_adapters(adapted, tmp_path, "student 'x'")
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_that_are_not_saved_are_refused(adapted, tmp_path, monkeypatch):
    save = type(adapted).save_pretrained

    def without_one(self, folder, **keywords):
        save(self, folder, **keywords)
        file = Path(folder) / "adapter_model.safetensors"
        weights = load_file(file)
        weights.pop(next(name for name in weights if "lora_B" in name))
        save_file(weights, file, metadata={"format": "pt"})

    monkeypatch.setattr(type(adapted), "save_pretrained", without_one)
    with pytest.raises(InputError, match="loads adapters that make other logits than the ones it saves"):
        check_adapters(adapted, tmp_path, "student 'x'")


@pytest.mark.parametrize("largest", [2**26, 0], ids=["saved whole", "a small model of its class"])
@pytest.mark.parametrize("lora", [None, Lora(lora_r=2)], ids=["all weights", "adapters"])
def test_the_trial_refuses_a_student_that_would_be_lost(largest, lora, tmp_path, monkeypatch, tokenizer):
    made: Any = random_model(small_config("youtu"))
    made.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    student = Student(name=str(tmp_path / "student"), lora=lora)
    loaded = load_student(student, Models().find(student.name))
    monkeypatch.setattr(dry, "_SAVED_WHOLE_BYTES", largest)
    with pytest.raises(InputError, match=LOST):
        dry._try_saving(loaded, tokenizer, "x")


def test_a_student_that_keeps_states_between_calls_is_saved(tmp_path, tokenizer):
    made: Any = random_model(small_config("recurrent_gemma"))
    made.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student: Any = load_student(Student(name=str(tmp_path)), Models().find(str(tmp_path)))
    student(input_ids=torch.ones(1, 4, dtype=torch.int64), use_cache=False)
    dry._try_saving(student, tokenizer, "x")


def test_a_folder_that_lacks_weights_is_refused(tmp_path, tiny_model, tokenizer):
    tiny_model(tie_word_embeddings=False).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 of the tensors of a LlamaForCausalLM, such as lm_head\.weight"):
        load_student(Student(name=str(tmp_path)), Models().find(str(tmp_path)))
