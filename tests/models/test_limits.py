"""What a model can take is known from its configuration: rows, learned positions, and whether it can generate."""

from typing import Any

import pytest
from transformers import GPT2Config, GPTJConfig, LlamaConfig, Mamba2Config, MptConfig, OPTConfig, RobertaConfig

from studykit.errors import InputError
from studykit.models.limits import Limits, limits_of
from studykit.models.names import ModelRef

SMALL: dict[str, Any] = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
CONFIGS = {
    "llama": (LlamaConfig(**SMALL, num_attention_heads=2, max_position_embeddings=48), Limits(90, None, 48, True)),
    "gpt2": (GPT2Config(vocab_size=90, n_embd=16, n_layer=1, n_head=2, n_positions=48), Limits(90, 48, 48, True)),
    "opt": (
        OPTConfig(vocab_size=90, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2,
                  word_embed_proj_dim=16, max_position_embeddings=48),
        Limits(90, 48, 48, True),  # its table has two rows more, which no position reaches
    ),
    "roberta": (
        RobertaConfig(**SMALL, num_attention_heads=2, max_position_embeddings=50, pad_token_id=1, is_decoder=True),
        Limits(90, 48, 50, False),  # its positions are counted from the padding token's id
    ),
    "gptj": (
        GPTJConfig(vocab_size=90, n_embd=16, n_layer=1, n_head=2, n_positions=48, rotary_dim=8),
        Limits(90, 48, 48, True),  # its table is computed once
    ),
    "mamba2": (
        Mamba2Config(vocab_size=90, hidden_size=32, num_hidden_layers=1, num_heads=8, head_dim=8, state_size=8,
                     n_groups=2, chunk_size=8),
        Limits(90, None, None, False),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
def test_limits_come_from_the_configuration_alone(kind, tmp_path):
    config, expected = CONFIGS[kind]
    config.save_pretrained(tmp_path)  # no weights are there
    assert limits_of(ModelRef("there", str(tmp_path))) == expected


def test_longer_sequences_than_a_configuration_names_are_tried_without_weights(tmp_path):
    """Rotary positions go on; the biases of MPT end."""
    llama, mpt = tmp_path / "llama", tmp_path / "mpt"
    CONFIGS["llama"][0].save_pretrained(llama)
    MptConfig(vocab_size=90, d_model=16, n_heads=2, n_layers=1, max_seq_len=48).save_pretrained(mpt)
    assert limits_of(ModelRef("there", str(llama)), longest=49).positions is None
    assert limits_of(ModelRef("there", str(mpt)), longest=48).positions is None
    assert limits_of(ModelRef("there", str(mpt)), longest=49).positions == 48


def test_a_random_architecture_has_limits_too(tiny_config):
    limits = limits_of(ModelRef("tokenizer alone", "nowhere"), tiny_config)
    assert limits == Limits(tiny_config["vocab_size"], None, tiny_config["max_position_embeddings"], True)


def test_a_folder_that_describes_no_model_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot load model 'there'") as caught:
        limits_of(ModelRef("there", str(tmp_path)))
    assert "\n" not in str(caught.value)
