"""The output head of a causal language model: hidden states to logits, with the scale and cap of its architecture."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from studykit.errors import InputError
from studykit.models import zero
from studykit.models.states import unwrap

_CHUNK_BYTES = 2**28
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True)
class OutputHead:
    """The last projection of a causal language model.

    Attributes:
        weight: [V, H].
        bias: [V], or None.
        logit_scale: factor of the logits in this architecture.
        softcap: c of the architecture's c * tanh(logits / c), or None.
        vocab_size: number of leading rows that are tokens of the shared tokenizer and take part; None means all V.
    """

    weight: Tensor
    bias: Tensor | None = None
    logit_scale: float = 1.0
    softcap: float | None = None
    vocab_size: int | None = None

    def first_rows(self, count: int) -> "OutputHead":
        """Return the head of the first tokens alone."""
        bias = None if self.bias is None else self.bias[:count]
        return replace(self, weight=self.weight[:count], bias=bias, vocab_size=None)

    def detach(self) -> "OutputHead":
        """Return the head without gradients."""
        return replace(self, weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def to(self, device: torch.device) -> "OutputHead":
        """Return the head on a device."""
        return replace(self, weight=self.weight.to(device), bias=None if self.bias is None else self.bias.to(device))


def project(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, logit_scale: float = 1.0, softcap: float | None = None
) -> Tensor:
    """Return the logits of hidden states, in float32 at least, [N, V]."""
    return scale_and_softcap(linear(hidden, weight, bias), logit_scale, softcap)


def logits_in_chunks(hidden: Tensor, head: OutputHead, vocab_size: int) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of the positions and their logits [n, V]: those of all positions together may not fit into memory.

    Args:
        hidden: states [N, H].
        head: projects them.
        vocab_size: number of leading rows that take part, such as `token_rows`.
    """
    part = head.first_rows(vocab_size)
    size = max(1, _CHUNK_BYTES // (4 * len(part.weight)))
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        yield rows, project(hidden[rows], part.weight, part.bias, part.logit_scale, part.softcap)


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """Return hidden @ weight.T + bias, computed in a dtype (None is the weight's), [N, V]."""
    dtype = weight.dtype if dtype is None else dtype
    return nn.functional.linear(hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype))


def scale_and_softcap(raw: Tensor, logit_scale: float = 1.0, softcap: float | None = None) -> Tensor:
    """Return the architecture's logits from the output of the projection, in float32 at least.

    The capped value is softcap * tanh(logits / softcap).
    """
    logits = raw if raw.dtype == torch.float64 else raw.float()
    logits = logits if logit_scale == 1 else logits * logit_scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def scale_and_softcap_backward(grad: Tensor, logits: Tensor, logit_scale: float, softcap: float | None) -> Tensor:
    """Return the derivative in the projection's output from the one in logits, the result of `scale_and_softcap`.

    >>> scale_and_softcap_backward(torch.tensor([1.0]), torch.tensor([1.0]), 0.5, 2.0)         # ½ (1 - ¼)
    tensor([0.3750])
    """
    if softcap is not None:
        grad = grad * (1 - (logits / softcap).square())
    return grad if logit_scale == 1 else grad * logit_scale


def output_head(model: nn.Module, vocab_size: int | None = None) -> OutputHead:
    """Return the output head of a model, also a wrapped one; gathered to its full size where FSDP has sharded it.

    Args:
        model: the causal language model.
        vocab_size: number of leading rows that take part in a loss, such as `token_rows`; None means all.

    Raises:
        InputError: the head is not a plain linear layer (adapters belong on the layers below it).
    """
    from torch.distributed.fsdp import FSDPModule

    inner = unwrap(model)
    layer: Any = inner.get_output_embeddings()
    if type(layer) is not nn.Linear and {FSDPModule, nn.Linear} != set(type(layer).__bases__):
        raise InputError(
            f"the output head of {type(inner).__name__} is a {type(layer).__name__}, not a plain linear layer: leave "
            "it out of lora_target_modules"
        )
    bias = None if layer.bias is None else gather_full(layer.bias)
    scale, cap = _scale_and_cap(inner.config.get_text_config())
    return OutputHead(gather_full(layer.weight), bias, scale, cap, vocab_size)


def gather_full(parameter: Tensor) -> Tensor:
    """Return the full parameter that FSDP has sharded over ranks; a parameter that is not sharded is returned as it is.

    Its gradient goes back into each rank's shard as the mean over ranks, as FSDP does for all other parameters.
    """
    from torch.distributed.tensor import DTensor, Partial, Replicate

    if zero.is_divided(parameter):
        return zero.gather(parameter)
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    gathered = parameter.redistribute(placements=[Replicate()] * mesh.ndim)
    local = gathered.to_local(grad_placements=[Partial()] * mesh.ndim)
    if local.requires_grad:
        local.register_hook(lambda gradient: gradient / mesh.size())
    return local


def _scale_and_cap(config: Any) -> tuple[float, float | None]:
    """Return the factor of the logits and their cap; each architecture's configuration names them differently."""
    factor = _FACTORS.get(config.model_type, _common_factor)
    caps = (getattr(config, name, None) for name in _CAPS)
    return float(factor(config)), next((cap for cap in caps if cap is not None), None)


def _common_factor(config: Any) -> float:
    return getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)


_FACTORS: dict[str, Callable[[Any], float]] = {
    "falcon_h1": lambda config: config.lm_head_multiplier,
    "hyperclovax": lambda config: config.logits_scaling,
    "minicpm3": lambda config: 1.0,  # its forward pass scales the hidden states before they reach the head
    "mpt": lambda config: 1.0,  # its configuration has a logit_scale that its forward pass leaves out
}
"""Architectures whose factor is not the usual one, by model type."""
