"""A teacher whose smallest weights are set to 0, as in R2KD: cheaper to run where hardware skips zeros."""

from typing import Any

from studykit.errors import InputError


def prune(model: Any, share: float) -> None:
    """Set the smallest weights of every linear layer to 0, in place; the output head is left alone.

    Args:
        model: a causal language model; it is not trained again afterwards.
        share: of each layer's weights, in [0, 1).

    Raises:
        InputError: the model has no linear layer.

    Source:
        Kim, Ham, Cho, Kim (2024), Robustness-Reinforced Knowledge Distillation with Correlation Distance and Network
        Pruning; the magnitude criterion is that of Han et al. (2015).

    Example:
        >>> import torch
        >>> from torch import nn
        >>> layer = nn.Linear(2, 2, bias=False)
        >>> layer.weight.data = torch.tensor([[0.1, -0.4], [0.2, 0.3]])
        >>> prune(nn.Sequential(layer), 0.5)
        >>> layer.weight.data
        tensor([[ 0.0000, -0.4000],
                [ 0.0000,  0.3000]])
    """
    import torch
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    if not layers:
        raise InputError(f"{type(model).__name__} has no linear layer that could be pruned")
    with torch.no_grad():
        for layer in layers:
            smallest = layer.weight.abs().flatten().argsort(stable=True)[: round(share * layer.weight.numel())]
            layer.weight.view(-1)[smallest] = 0
