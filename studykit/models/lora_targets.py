"""Linear layers that `all-linear` leaves out of LoRA, because adapters on them break or do nothing."""

from typing import Any

import torch
from torch import Tensor, nn

_FUSED = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
"""Model types whose fused kernels read the weight of `out_proj` past any adapter: peft refuses adapters on it."""


def without_adapters(model: Any) -> list[str]:
    """Return the names of linear layers that stay as they are where all others get adapters, the head apart.

    A class of linear layers with another forward pass may return something other than its output, such as the
    scores and choices of a router, or take inputs of another shape. Adapters could not be added to that.

    Args:
        model: of transformers, not wrapped.
    """
    fused = model.config.model_type in _FUSED
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and ((fused and name.rpartition(".")[2] == "out_proj") or not _maps_vectors(layer))
    ]


@torch.no_grad()
def _maps_vectors(layer: nn.Linear) -> bool:
    """Return whether a layer makes one vector of each vector."""
    if type(layer).forward is nn.Linear.forward:
        return True
    given = torch.zeros(1, 2, layer.in_features, dtype=layer.weight.dtype, device=layer.weight.device)
    try:
        made = layer(given)
    except Exception:  # whatever a class asks of its input
        return False
    return isinstance(made, Tensor) and made.shape == (1, 2, layer.out_features)
