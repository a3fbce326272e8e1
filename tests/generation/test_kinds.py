"""Architectures whose caches differ: against transformers' own generation, and drafts against plain answers."""

from typing import Any

import pytest
import torch
from toys import PAD, PROMPTS, V, drafted, sampled, seeded
from transformers import AutoConfig, AutoModelForCausalLM

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


def test_a_recurrent_state_samples_with_all_its_rows_and_is_recomputed_where_drafts_are_rejected():
    model, max_new_tokens = built("lfm2", **RECURRENT), [14, 2, 3, 9, 1]
    whole = own_answers(model)
    expected = [row[:n] for row, n in zip(whole, max_new_tokens, strict=True)]
    assert sampled(model, max_new_tokens=max_new_tokens, eos_token_ids=NEVER).tokens == expected
    answers, checked, accepted = drafted(
        model, model, max_new_tokens=max_new_tokens, top_k=1, sampling=Sampling(2.0), eos_token_ids=NEVER
    )
    assert answers.tokens == expected
    assert 0 < accepted < checked


CACHELESS: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4},
    "rwkv": {"attention_hidden_size": 32},
    "xlstm": {"num_heads": 4, "embedding_dim": 32, "chunk_size": 8},
}


def by_argmax(model, prompt: list[int], max_new_tokens: int) -> list[int]:
    """Return the likeliest answer by plain forward passes over one row."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1, :V].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", CACHELESS)
def test_a_model_without_a_key_value_cache_answers_each_row_as_alone(kind):
    model, max_new_tokens = built(kind, **CACHELESS[kind]), [9, 2, 3, 7, 1]
    with torch.no_grad():
        for parameter in model.parameters():  # or the answers of fresh weights are one token over and over
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=seeded(1)))
    expected = [by_argmax(model, *pair) for pair in zip(PROMPTS, max_new_tokens, strict=True)]
    answers = sampled(model, max_new_tokens=max_new_tokens, eos_token_ids=NEVER)
    assert answers.tokens == expected
    assert len({token for row in expected for token in row}) > 5
    assert answers.scored_tokens[0] > sum(map(len, PROMPTS)) + sum(max_new_tokens)  # each token again and again
    mixed, _, _ = drafted(
        model, model, max_new_tokens=max_new_tokens, top_k=1, sampling=Sampling(2.0), eos_token_ids=NEVER
    )
    assert mixed.tokens == expected
