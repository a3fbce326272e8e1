"""A model that something was tried on is bit by bit what it was."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from studykit.models.unchanged import unchanged


class Noted(nn.Module):
    """A layer with everything that a forward or backward pass may change."""

    def __init__(self):
        super().__init__()
        self.norm: Any = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.frequencies: torch.Tensor
        self.register_buffer("frequencies", torch.ones(2), persistent=False)

    def forward(self, x):
        self.frequencies = self.frequencies * 2
        return self.drop(self.norm(x)).square().sum() * random.random() * np.random.rand()


def random_numbers():
    return torch.rand(3).tolist(), random.random(), float(np.random.rand())


def test_nothing_is_left_of_a_training_step_that_was_tried():
    torch.manual_seed(0)
    model = Noted()
    model.norm.eval()  # modes may differ within a model
    model(torch.randn(4, 3)).backward()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    frequencies, gradient = model.frequencies, model.norm.weight.grad
    numbers = []
    for tried in (False, True):
        _ = torch.manual_seed(1), random.seed(1), np.random.seed(1)
        if tried:
            with unchanged(model):
                model.train()
                model(torch.randn(4, 3)).backward()
                assert not torch.equal(model.norm.running_mean, weights["norm.running_mean"])
                assert torch.rand(3).tolist() != numbers[0][0]
        numbers.append(random_numbers())
    assert numbers[0] == numbers[1]
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.frequencies is frequencies
    assert model.norm.weight.grad is gradient
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)


def test_nothing_is_left_of_a_step_that_failed():
    model, wrong = Noted(), torch.ones(4, 2)
    with pytest.raises(RuntimeError, match="running_mean"), unchanged(model.eval()):
        model.train()(wrong)
    assert not model.training
    assert torch.equal(model.frequencies, torch.ones(2))
