"""A small model of another one's kind: its class, its flags and each of its kinds of layers, with random weights.

    small = small_copy(model)                     # some thousand parameters

What depends on the class alone is tried on it, in milliseconds, where the model itself has gigabytes.
"""

import copy
import re
from typing import Any

import torch
from torch import nn

VOCAB_SIZE, POSITIONS, WINDOW = 96, 64, 4
_NOISE = re.compile("drop|jitter")
_TOKEN_ID = re.compile(r"_token_id$")

SMALL: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_dim", "embedding_size"), 32),
    **dict.fromkeys(("attention_hidden_size", "lru_width", "word_embed_proj_dim", "backbone_hidden_size"), 32),
    **dict.fromkeys(("mamba_d_ssm", "input_embedding_size", "output_embedding_size", "decoder_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "ffn_dim"), 40),
    **dict.fromkeys(
        ("shared_intermediate_size", "ffn_hidden_size", "feed_forward_size", "dense_intermediate_size"), 40
    ),
    **dict.fromkeys(("shared_experts_intermediate_size", "moe_shared_expert_intermediate_size", "d_inner", "dff"), 40),
    **dict.fromkeys(("expert_ffn_hidden_size", "intermediate_size_mlp", "decoder_ffn_dim", "encoder_ffn_dim"), 40),
    **dict.fromkeys(("dim_ff", "block_ff_dim", "router_hidden_size"), 40),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "num_blocks"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("linear_num_heads", "linear_num_value_heads", "n_mamba_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("index_n_heads", "attention_heads", "mamba_num_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "linear_num_key_heads", "num_query_groups"), 2),
    **dict.fromkeys(("swa_num_key_value_heads", "mamba_n_groups", "n_groups", "mamba_ngroups"), 2),
    **dict.fromkeys(("head_dim", "linear_key_head_dim", "linear_value_head_dim", "swa_head_dim", "kv_channels"), 8),
    **dict.fromkeys(("linear_head_dim", "attention_head_dim", "d_head", "dim_head", "attention_head_size"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim", "index_head_dim", "qk_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size", "rotary_dim", "query_pre_attn_scalar"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size", "time_step_rank", "mamba_dt_rank", "o_lora_rank"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), POSITIONS),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "model_max_length"), POSITIONS),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "n_group"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "topk_group", "num_expert_group"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "attention_window_size", "window_size"), WINDOW),
    **dict.fromkeys(("sliding_window_size", "index_topk"), WINDOW),
    **dict.fromkeys(("hidden_size_per_layer_input",), 8),
    "vocab_size_per_layer_input": VOCAB_SIZE,
    "mamba_expand": 1,
    "expand": 2,
    "is_decoder": True,
}
"""Sizes by the name of the field, where the class has it."""


def small_copy(model: Any) -> nn.Module | None:
    """Return a small model of the same class; None where names do not tell how its configuration is made small.

    Args:
        model: of transformers, not wrapped.
    """
    try:
        small = _make_small(model)
        with torch.no_grad():
            small(input_ids=torch.ones(1, 4, dtype=torch.int64), use_cache=False)
    except Exception:  # whatever a class makes of a configuration
        return None
    return small


def _make_small(model: Any) -> nn.Module:
    fields = copy.deepcopy(model.config).to_dict()
    changes = small_fields(fields)
    if {"qk_rope_head_dim", "qk_nope_head_dim"} <= fields.keys():  # latent attention: a head has both parts
        changes |= {"num_key_value_heads": SMALL["num_attention_heads"], "qk_head_dim": 2 * SMALL["qk_head_dim"]}
    if "rope_type" in (fields.get("rope_parameters") or {}):  # factors of long contexts depend on sizes
        changes["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    changes |= {
        key: _small_ids(value)
        for key, value in fields.items()
        if _TOKEN_ID.search(key) and value is not None and key not in changes
    }
    return type(model)(type(model.config).from_dict(fields | changes))


def _small_ids(ids: Any) -> Any:
    """Return token ids that a small vocabulary has."""
    return [each % VOCAB_SIZE for each in ids] if isinstance(ids, list) else ids % VOCAB_SIZE


def small_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are to be changed, of a configuration and of those inside it."""
    changes = {name: SMALL[name] for name, value in fields.items() if name in SMALL and value is not None}
    noise = {name for name, value in fields.items() if isinstance(value, float) and _NOISE.search(name)}
    changes |= dict.fromkeys(noise, 0.0)  # losses are compared with plain ones
    if types := fields.get("layer_types"):
        changes["layer_types"] = (list(dict.fromkeys(types)) * 2)[: max(2, len(set(types)))]
        changes["num_hidden_layers"] = len(changes["layer_types"])
    layers, few = fields.get("num_hidden_layers"), changes.get("num_hidden_layers", 0)
    for name, value in fields.items():
        kinds = isinstance(value, list) and len(value) == layers and all(isinstance(kind, str) for kind in value)
        if kinds and name not in changes:
            changes[name] = [value[number * len(value) // few] for number in range(few)]
        if name.endswith("_config") and isinstance(value, dict):
            changes[name] = {**value, **small_fields(value)} if "model_type" in value else small_fields(value)
    return changes
