"""Compare the logits that the kit computes from hidden states with the model's, on a few tokens.

Architectures scale, cap or shift their logits in ways that no list of names covers for long, and a loss on other logits
would train without an error. So every model is compared once, after it is loaded.
"""

from typing import Any

import torch
from transformers.utils.generic import is_flash_attention_requested

from studykit.errors import InputError
from studykit.models.projection import output_head, project
from studykit.models.states import evaluating, hidden_states, unwrap

_TOKENS = 8
_TOLERANCE = 0.02
"""Of the largest logit: more than bf16 rounds, less than any factor or cap changes."""


@torch.no_grad()
def check_logits(model: Any, name: str) -> None:
    """Compare the logits of a few tokens with those of the model's own forward pass.

    Args:
        model: a causal language model, wrapped or not.
        name: of the model, for the message.

    Raises:
        InputError: the model makes other logits of its hidden states than a linear head, a factor and a cap.
    """
    inner = unwrap(model)
    if is_flash_attention_requested(inner.config) and inner.dtype == torch.float32:
        return  # it runs under autocast only, which training turns on
    head = output_head(model)
    rows = len(head.weight)
    ids = torch.arange(1, _TOKENS + 1, device=head.weight.device)[None] * 7 % rows
    mask = torch.ones_like(ids)
    with evaluating(model):
        wanted = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()[0]
        states = hidden_states(model, ids, mask)[0]
    logits = project(states, head.weight, head.bias, head.logit_scale, head.softcap)
    error, largest = (logits - wanted).abs().max(), wanted.abs().max()
    if not error <= _TOLERANCE * largest:
        raise InputError(
            f"model {name!r} ({type(model).__name__}) makes its logits in a way that is not supported: they differ by "
            f"{float(error):.3g} of {float(largest):.3g} from those of its output head; choose another architecture"
        )
