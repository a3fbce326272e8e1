"""What a model can take is known from its configuration: rows, learned positions, and whether it can generate."""

from typing import Any

import pytest
from transformers import GPT2Config, LlamaConfig, Mamba2Config, OPTConfig

from studykit.errors import InputError
from studykit.models.limits import Limits, limits_of
from studykit.models.names import ModelRef

SMALL: dict[str, Any] = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
CONFIGS = {
    "llama": (LlamaConfig(**SMALL, num_attention_heads=2, max_position_embeddings=48), Limits(90, None, True)),
    "gpt2": (GPT2Config(vocab_size=90, n_embd=16, n_layer=1, n_head=2, n_positions=48), Limits(90, 48, True)),
    "opt": (
        OPTConfig(vocab_size=90, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2,
                  word_embed_proj_dim=16, max_position_embeddings=48),
        Limits(90, 48, True),  # its table has two rows more, which no position reaches
    ),
    "mamba2": (
        Mamba2Config(vocab_size=90, hidden_size=32, num_hidden_layers=1, num_heads=8, head_dim=8, state_size=8,
                     n_groups=2, chunk_size=8),
        Limits(90, None, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_limits_come_from_the_configuration_alone(kind, tmp_path):
    config, expected = CONFIGS[kind]
    config.save_pretrained(tmp_path)  # no weights are there
    assert limits_of(ModelRef("there", str(tmp_path))) == expected


def test_a_random_architecture_has_limits_too(tiny_config):
    limits = limits_of(ModelRef("tokenizer alone", "nowhere"), tiny_config)
    assert limits == Limits(tiny_config["vocab_size"], None, True)


def test_a_folder_that_describes_no_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot load model 'there'") as caught:
        limits_of(ModelRef("there", str(tmp_path)))
    assert "\n" not in str(caught.value)
