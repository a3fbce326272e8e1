"""The last projection of a causal language model: hidden states to logits, as its architecture means them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from studykit.errors import InputError
from studykit.models.sharding import gather_full
from studykit.models.states import unwrap

_CHUNK_BYTES = 2**28
_MULTIPLIED = {"hyperclovax"}
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True)
class OutputHead:
    """The last projection of a causal language model.

    Attributes:
        weight: [V, H].
        bias: [V], or None.
        logit_scale: what the architecture multiplies logits with.
        softcap: c of the architecture's c * tanh(logits / c), or None.
    """

    weight: Tensor
    bias: Tensor | None
    logit_scale: float = 1.0
    softcap: float | None = None


def project(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, logit_scale: float = 1.0, softcap: float | None = None
) -> Tensor:
    """Return the logits of hidden states, in float32 at least, [N, V]."""
    return scale_and_softcap(linear(hidden, weight, bias), logit_scale, softcap)


def logits_in_chunks(hidden: Tensor, head: OutputHead, vocab_size: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield some positions at a time and their logits [n, V]: those of all positions together may not fit.

    Args:
        hidden: states [N, H].
        head: projects them.
        vocab_size: the rows of it that count, such as `token_rows`.
    """
    weight, bias = head.weight[:vocab_size], None if head.bias is None else head.bias[:vocab_size]
    size = max(1, _CHUNK_BYTES // (4 * len(weight)))
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        yield rows, project(hidden[rows], weight, bias, head.logit_scale, head.softcap)


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """Return hidden @ weight.T + bias, computed in a dtype (None is the weight's), [N, V]."""
    dtype = weight.dtype if dtype is None else dtype
    return nn.functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def scale_and_softcap(raw: Tensor, logit_scale: float = 1.0, softcap: float | None = None) -> Tensor:
    """Return logits from what the projection gave, in float32 at least.

    Scale and soft cap belong to the architecture; the capped value is softcap * tanh(logits / softcap).
    """
    logits = raw if raw.dtype == torch.float64 else raw.float()
    logits = logits if logit_scale == 1 else logits * logit_scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def output_head(model: nn.Module) -> OutputHead:
    """Return the output projection of a model, through whatever wraps it; whole, where FSDP has sharded it.

    Raises:
        InputError: the head is no plain linear layer (adapters belong on the layers below it).
    """
    inner = unwrap(model)
    layer: Any = inner.get_output_embeddings()
    if type(layer) is not nn.Linear and {FSDPModule, nn.Linear} != set(type(layer).__bases__):
        raise InputError(
            f"the output head of {type(inner).__name__} is a {type(layer).__name__}, not a plain linear layer: leave "
            "it out of lora_target_modules"
        )
    config = inner.config.get_text_config()
    weight, bias = gather_full(layer.weight), None if layer.bias is None else gather_full(layer.bias)
    return OutputHead(weight, bias, *_shape(config))


def _shape(config: Any) -> tuple[float, float | None]:
    """Return what an architecture multiplies its logits with, and where it caps them: each has a name of its own."""
    scaling = float(getattr(config, "logits_scaling", None) or 1)
    scale = getattr(config, "logit_scale", None) or (scaling if config.model_type in _MULTIPLIED else 1 / scaling)
    caps = (getattr(config, name, None) for name in _CAPS)
    return float(scale), next((cap for cap in caps if cap is not None), None)
