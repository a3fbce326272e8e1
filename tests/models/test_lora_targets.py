"""Adapters on all linear layers leave out those on which they would break, and train everywhere else."""

from typing import Any

import pytest

from studykit.models.loading import load_student
from studykit.models.lora_targets import without_adapters
from studykit.models.names import Models
from studykit.spec import Lora, Student
from tools.small_models import random_model, small_config


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "mixtral", "jamba", "bitnet"])
def test_most_models_have_adapters_on_all_linear_layers(model_type):
    assert not without_adapters(random_model(small_config(model_type)))


LEFT_OUT = {
    "mamba": "mixer.out_proj",
    "falcon_h1": "mamba.out_proj",
    "llama4_text": "feed_forward.router",
    "phimoe": "mlp.router",
    "deepseek_v4": "o_a_proj",
}


@pytest.mark.parametrize("model_type", LEFT_OUT)
def test_layers_that_adapters_would_break_are_left_out(model_type, tmp_path, tokenizer):
    made: Any = random_model(small_config(model_type))
    made.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    student: Any = load_student(Student(name=str(tmp_path), lora=Lora(lora_r=2)), Models().find(str(tmp_path)))
    adapted = {name.split(".lora_")[0] for name, p in student.named_parameters() if p.requires_grad}
    assert adapted
    assert not any(name.endswith(LEFT_OUT[model_type]) for name in adapted)
    assert any(name.endswith(LEFT_OUT[model_type]) for name in without_adapters(student.get_base_model()))
