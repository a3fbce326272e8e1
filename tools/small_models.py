"""A small random model of every causal architecture of transformers, to try the package on.

    config = small_config("gemma3_text")                 # a few thousand parameters, each kind of layer once
    model = random_model(config, seed=0)                 # weights large enough that every part of it matters

A configuration starts from the defaults of its class; fields are made small by their names, and what names do not tell
is in `SPECIAL`.
"""

import re
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

VOCAB_SIZE, POSITIONS, WINDOW = 96, 64, 4
_NOISE = re.compile("drop|jitter")

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

_PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_LATENT = {"num_key_value_heads": 4, "qk_head_dim": 16}
_HYBRID = {
    "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    "num_hidden_layers": 4,
    "hybrid_layer_ids": [1, 3],
    "attention_hidden_size": 64,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "mamba_headdim": 16,
    "mamba_expand": 2,
}
_SHARING: dict[str, Any] = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
}
_GEMMA3N = _SHARING | {
    "intermediate_size": [40] * 4,
    "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0],
    "altup_num_inputs": 2,
    "laurel_rank": 8,
}
SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "bailing_hybrid", "deepseek_v3", "deepseek_v32"), _LATENT),
    **dict.fromkeys(("glm4_moe_lite", "glm_moe_dsa", "kimi_linear", "minicpm3", "youtu"), _LATENT),
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "longcat_flash": {**_LATENT, "zero_expert_num": 2},
    "deepseek_v2": {**_LATENT, "num_experts_per_tok": 2, "n_group": 1},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 40, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note_text": {**_LATENT, "swa_head_dim": 16, "swa_num_key_value_heads": 4},
    "gemma3n_text": _GEMMA3N,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {"full_attention": _PLAIN_ROPE, "sliding_attention": _PLAIN_ROPE},
    },
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen4_exp_text": {
        "hc_lowrank": 8,
        "ple_embed_dim": 32,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "shape_vocab_size": VOCAB_SIZE},
    "xmod": {"default_language": "en_XX"},
    "zamba": _HYBRID,
    "zamba2": {**_HYBRID, "n_mamba_heads": 4, "mamba_ngroups": 1, "num_query_groups": 4, "kv_channels": 8},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 2,
    },
}
"""What the names of fields do not tell, by model type."""

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def model_types() -> list[str]:
    """Return the model types that transformers has a causal language model of."""
    return sorted({config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING})


def small_config(model_type: str) -> Any:
    """Return a small configuration of an architecture.

    Raises:
        Exception: of any kind, where the class refuses the sizes.
    """
    changes: dict[str, Any] = _shrunk(AutoConfig.for_model(model_type).to_dict()) | TOKENS | SPECIAL.get(model_type, {})
    changes |= {
        name: part | SPECIAL.get(part.get("model_type", ""), {})
        for name, part in changes.items()
        if name == "text_config"
    }
    return AutoConfig.for_model(model_type, **changes)


def _shrunk(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are to be changed, of a configuration and of those inside it."""
    changes = {name: SMALL[name] for name, value in fields.items() if name in SMALL and value is not None}
    noise = {name for name, value in fields.items() if isinstance(value, float) and _NOISE.search(name)}
    changes |= dict.fromkeys(noise, 0.0)  # losses are compared with plain ones
    if types := fields.get("layer_types"):
        changes["layer_types"] = (list(dict.fromkeys(types)) * 2)[: max(2, len(set(types)))]
        changes["num_hidden_layers"] = len(changes["layer_types"])
    for name, value in fields.items():
        if name.endswith("_config") and isinstance(value, dict):
            changes[name] = {**value, **_shrunk(value)} if "model_type" in value else _shrunk(value)
    return changes


def random_model(config: Any, seed: int = 0, scale: float = 0.15) -> nn.Module:
    """Return a model with random weights in evaluation mode, float32.

    Fresh weights are so small that a wrong factor, mask or position changes nothing that can be seen, so noise is
    added to all of them.
    """
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model
