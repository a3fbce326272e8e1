"""A small random model of every causal architecture of transformers, to try the package on.

    config = small_config("gemma3_text")                 # a few thousand parameters, each kind of layer once
    model = random_model(config, seed=0)                 # weights large enough that every part of it matters

A configuration starts from the defaults of its class; fields are made small by their names, and what names do not tell
is in `SPECIAL`.
"""

from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from studykit.models.small_copy import VOCAB_SIZE, small_fields

_PLAIN_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_LATENT = {"num_key_value_heads": 4, "qk_head_dim": 16}
_SPARSE = _LATENT | {"index_n_heads": 16}  # with few heads many scores are zero, and which of these are read is chance
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
    **dict.fromkeys(("axk1", "bailing_hybrid", "deepseek_v3", "glm4_moe_lite"), _LATENT),
    **dict.fromkeys(("kimi_linear", "minicpm3", "youtu"), _LATENT),
    **dict.fromkeys(("axk2", "deepseek_v32", "glm_moe_dsa"), _SPARSE),
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
    changes: dict[str, Any] = (
        small_fields(AutoConfig.for_model(model_type).to_dict()) | TOKENS | SPECIAL.get(model_type, {})
    )
    changes |= {
        name: part | SPECIAL.get(part.get("model_type", ""), {})
        for name, part in changes.items()
        if name == "text_config"
    }
    return AutoConfig.for_model(model_type, **changes)


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
