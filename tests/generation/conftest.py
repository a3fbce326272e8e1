"""Toy models for the tests of generation."""

from typing import Any

import pytest
import torch
from toys import V
from transformers import AutoConfig, AutoModelForCausalLM


@pytest.fixture(scope="module")
def make(tiny_model):
    """Make a random model in evaluation mode: Llama, one with learned absolute positions, one with a short window."""

    def make(kind="llama", seed=0, spread=10.0):
        if kind == "llama":
            return tiny_model(seed=seed, spread=spread).eval()
        fields: dict[str, Any] = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
        if kind == "gpt2":
            fields |= {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
        else:
            fields |= {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
            fields |= {"num_key_value_heads": 2, "sliding_window": 6, "initializer_range": 0.3}
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).eval()

    return make


@pytest.fixture(scope="module")
def markov(tiny_model):
    """Make a Llama, cache and all, whose next token depends on the last one alone, by a table of probabilities."""

    def make(table):
        size = len(table)
        model: Any = tiny_model(hidden_size=size, vocab_size=size, intermediate_size=size, rms_norm_eps=1e-12).eval()
        with torch.no_grad():
            for layer in model.model.layers:
                layer.self_attn.o_proj.weight.zero_()
                layer.mlp.down_proj.weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(size))
            model.lm_head.weight.copy_(torch.as_tensor(table).log().clamp(min=-1e4).T / size**0.5)
        return model

    return make
