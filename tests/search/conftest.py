"""A tiny trained teacher on real digits, shared by the tests of the room."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from n2n.data import Data, example_inputs, load


def tiny_cnn(classes: int = 10) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, classes),
    )


@pytest.fixture(scope="session")
def digits() -> Data:
    return load("digits")


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return tiny_cnn()


@pytest.fixture(scope="session")
def example(digits: Data) -> torch.Tensor:
    return example_inputs(digits)
