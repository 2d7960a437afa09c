"""The memory of training, against what is counted by hand."""

from __future__ import annotations

import torch
from torch import nn

from n2n.networks import training_bytes


def test_what_a_small_chain_keeps_is_counted_by_hand() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    kept = 4 * 4 + 3 * 4  # the input for the first layer; what the ReLU gives, for it and for the second layer, once
    weights = (4 * 3 + 3 + 3 * 2 + 2) * 4
    assert training_bytes(network, torch.randn(1, 4), 10) == 10 * kept + 4 * weights
    assert training_bytes(network, torch.randn(5, 4), 10) == 10 * kept + 4 * weights


def test_the_network_is_left_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training_bytes(network, torch.randn(1, 1, 5, 5), 2)
    assert network.training
    assert not any(one.requires_grad for one in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
