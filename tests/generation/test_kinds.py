"""Architectures whose caches differ: against transformers' own generation, and drafts against plain answers."""

from typing import Any

import pytest
import torch
from toys import GREEDY, PAD, PROMPTS, V, drafted, sampled
from transformers import AutoConfig, AutoModelForCausalLM

from studykit.errors import InputError
from studykit.generation import Sampling, pad_prompts

SHORT: dict[str, Any] = {"sliding_window": 5, "head_dim": 8}
KINDS: dict[str, dict[str, Any]] = {
    "gemma3_text": SHORT | {"query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_oss": SHORT | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {  # attends within chunks
        "attention_chunk_size": 6,
        "head_dim": 8,
        "num_local_experts": 2,
        "intermediate_size_mlp": 40,
        "no_rope_layers": [1, 0],
    },
    "deepseek_v3": {  # keys and values of different sizes
        "num_key_value_heads": 4,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 12,
        "first_k_dense_replace": 2,
    },
    "gemma3n_text": {  # two layers read the keys of two others
        **SHORT,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": V,
        "laurel_rank": 4,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": [40] * 4,
    },
}
NEVER = (V,)
RECURRENT: dict[str, Any] = {"layer_types": ["conv", "full_attention"], "block_ff_dim": 40}


def built(kind: str, **changes: Any) -> Any:
    fields: dict[str, Any] = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2}
    fields |= {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    fields |= {"num_key_value_heads": 2, "initializer_range": 0.3} | changes
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **fields)).eval()


def own_answers(model) -> list[list[int]]:
    ids, mask = pad_prompts(PROMPTS, PAD)
    model.generation_config.eos_token_id = None
    made = model.generate(input_ids=ids, attention_mask=mask.long(), do_sample=False, max_new_tokens=14)
    return made[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_attention_answers_as_transformers_does_and_takes_back_what_is_rejected(kind):
    model, max_new_tokens = built(kind, **KINDS[kind]), [14, 2, 3, 9, 1]
    whole = sampled(model, max_new_tokens=14, eos_token_ids=NEVER).tokens
    assert whole == own_answers(model)
    expected = [row[:limit] for row, limit in zip(whole, max_new_tokens, strict=True)]
    assert sampled(model, max_new_tokens=max_new_tokens, eos_token_ids=NEVER).tokens == expected
    answers, checked, accepted = drafted(
        model, model, max_new_tokens=max_new_tokens, top_k=1, sampling=Sampling(2.0), eos_token_ids=NEVER
    )
    assert answers.tokens == expected
    assert 0 < accepted < checked


def test_a_recurrent_state_samples_with_all_its_rows_and_drafts_nothing():
    model, max_new_tokens = built("lfm2", **RECURRENT), [14, 2, 3, 9, 1]
    whole = own_answers(model)
    assert sampled(model, max_new_tokens=max_new_tokens, eos_token_ids=NEVER).tokens == [
        row[:n] for row, n in zip(whole, max_new_tokens, strict=True)
    ]
    with pytest.raises(InputError, match="Lfm2ForCausalLM keeps a recurrent state"):
        drafted(model, model, sampling=GREEDY)


def test_a_model_without_attention_is_refused():
    with pytest.raises(InputError, match="MambaForCausalLM takes no key-value cache"):
        sampled(built("mamba", state_size=4))
