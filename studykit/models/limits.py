"""What a model can take, known from its configuration before any weight is loaded."""

import re
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from studykit.errors import InputError
from studykit.models.loading import architecture
from studykit.models.names import ModelRef

_POSITIONS = re.compile(r"wpe|position", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What a model can take.

    Attributes:
        embedding_rows: token ids must be smaller.
        learned_positions: tokens of a sequence, where each position has a learned vector; None where it is computed.
        has_kv_cache: whether the forward pass takes a key-value cache, which generation needs.
        parameters: number of all parameters, those of a tied head once.
    """

    embedding_rows: int
    learned_positions: int | None
    has_kv_cache: bool
    parameters: int = field(default=0, compare=False)


def limits_of(model: ModelRef, random_config: dict[str, Any] | None = None) -> Limits:
    """Return the limits of a model, from a copy without weights.

    Args:
        model: as found by its name.
        random_config: the architecture, where `model` gives the tokenizer alone.

    Raises:
        InputError: no configuration there, or one of no causal language model.
    """
    try:
        config = (
            architecture(random_config)
            if random_config
            else AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=False)
        )
        with torch.device("meta"):
            empty: Any = AutoModelForCausalLM.from_config(config)
    except InputError:
        raise
    except Exception as error:  # a configuration may be wrong in any way
        raise InputError(f"cannot load model {model.name!r}: {str(error).splitlines()[0]}") from None
    tokens = empty.get_input_embeddings()
    tables = [
        module.num_embeddings - getattr(module, "offset", 0)
        for name, module in empty.named_modules()
        if isinstance(module, nn.Embedding) and module is not tokens and _POSITIONS.search(name)
    ]
    takes = signature(empty.forward).parameters
    parameters = sum(p.numel() for p in empty.parameters())
    return Limits(tokens.num_embeddings, min(tables, default=None), "past_key_values" in takes, parameters)
