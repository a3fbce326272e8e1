"""Try something on a model, and leave no trace of it.

with unchanged(model):
    loss(model).backward()
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put gradients, buffers, modes and all random states back as they were before the block, bit by bit.

    Weights are not copied: the block must not write them.
    """
    parameters = [(p, p.grad) for p in model.parameters()]
    buffers = [(owner, name, b, b.clone()) for owner in model.modules() for name, b in _buffers(owner)]
    modes = [(module, module.training) for module in model.modules()]
    states: Any = (random.getstate(), np.random.get_state())
    for parameter, _ in parameters:
        parameter.grad = None
    devices = {p.device for p, _ in parameters if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=[device.index or 0 for device in devices]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for parameter, gradient in parameters:
            parameter.grad = gradient
        with torch.no_grad():
            for owner, name, buffer, copy in buffers:
                buffer.copy_(copy)
                setattr(owner, name, buffer)  # some are replaced, as the frequencies of dynamic rotary positions
        for module, mode in modes:
            module.training = mode


def _buffers(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.named_buffers(recurse=False))
