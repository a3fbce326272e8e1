"""A model whose logits the kit would get wrong is refused, and every other one passes."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studykit.errors import InputError
from studykit.models.probe import probe

SHAPE = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
KINDS = {
    "cohere": {"logit_scale": 0.37},
    "falcon_h1": {**MAMBA, "mamba_chunk_size": 8, "head_dim": 8, "lm_head_multiplier": 0.0195},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 1.5},
    "granite": {"logits_scaling": 3.0},
    "hyperclovax": {"logits_scaling": 3.0},
    "llama": {},
    "minicpm3": {**LATENT, "hidden_size": 64, "dim_model_base": 16},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "logit_scale": 0.37},
    "nanochat": {},
}


def make(kind):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHAPE, **KINDS[kind]}))
    with torch.no_grad():
        for parameter in model.parameters():  # fresh weights give logits near 0, which any factor would fit
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_logits_of_an_architecture_are_its_own(kind):
    probe(make(kind), kind)


def test_a_factor_that_no_configuration_names_is_refused():
    model = make("llama")
    forward = model.forward

    def scaled(*arguments, **keywords):
        made = forward(*arguments, **keywords)
        made.logits = made.logits * 1.5
        return made

    model.forward = scaled
    with pytest.raises(InputError, match=r"model 'mine' \(LlamaForCausalLM\) makes its logits in a way that is not"):
        probe(model, "mine")


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_model_that_looks_ahead_is_refused(is_decoder):
    fields = {**SHAPE, "is_decoder": is_decoder}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("bert", **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    if is_decoder:
        probe(model, "mine")
        return
    with pytest.raises(InputError, match=r"\(BertLMHeadModel\) sees tokens that come later, .* set is_decoder to true"):
        probe(model, "mine")


def test_what_a_model_raises_is_one_line():
    model = make("llama")

    def broken(*arguments, **keywords):
        raise NotImplementedError("no kernel:\nfor this device")

    model.forward = broken
    with pytest.raises(InputError, match=r"'mine' \(LlamaForCausalLM\) cannot be run on a few tokens: no kernel: for"):
        probe(model, "mine")
