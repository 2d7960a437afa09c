"""SynFlow against networks worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from n2n.scores import Probe, ScoreError
from n2n.scores.synflow import synflow

PROBE = Probe(torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(3, dtype=torch.int64))


def two_layers(*between: nn.Module, bias: bool = False) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(2, 2, bias=bias), *between, nn.Linear(2, 1, bias=bias))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
        network[-1].weight.copy_(torch.tensor([[-1.0, 2.0]]))
        if bias:
            network[0].bias.copy_(torch.tensor([-1.0, 0.0]))
            network[-1].bias.fill_(-5.0)
    return network


def test_two_linear_layers_by_hand():
    # Ones become (1 + 2, 3 + 4) = (3, 7) and R = 1 * 3 + 2 * 7 = 17. Each layer's |w dR/dw| adds up to R:
    # 1 * 1 + 2 * 1 + 3 * 2 + 4 * 2 = 17 in the first, 1 * 3 + 2 * 7 = 17 in the second.
    assert synflow(two_layers(), PROBE) == 34
    assert synflow(two_layers(nn.ReLU()), PROBE) == 34  # nothing is negative


def test_biases_take_part_and_are_not_summed():
    # The hidden units become (3 + 1, 7): the second layer's sum is 1 * 4 + 2 * 7 = 18, the first's stays 17.
    assert synflow(two_layers(bias=True), PROBE) == 35


def test_batch_norm_is_left_out():
    norm = nn.BatchNorm1d(2)
    with torch.no_grad():
        norm.running_var.fill_(9.0)
        norm.weight.fill_(-3.0)
        norm.bias.fill_(1.0)
    assert synflow(two_layers(norm), PROBE) == 34


def test_a_convolution_by_hand():
    # A 2x2 kernel of ones over 3x3 ones gives 4 positions of 4: R = 16, and so is the sum over the one layer.
    network = nn.Conv2d(1, 1, 2, bias=False)
    with torch.no_grad():
        network.weight.fill_(-1.0)
    assert synflow(network, Probe(torch.zeros(1, 1, 3, 3), torch.zeros(1, dtype=torch.int64))) == 16


def test_large_flows_need_the_float64():
    layers = [nn.Linear(2, 2, bias=False) for _ in range(10)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1e8)
    # Every layer multiplies by 2e8; two outputs: R = 2 * (2e8)^10, of which float32 knows nothing.
    assert synflow(nn.Sequential(*layers), PROBE) == pytest.approx(10 * 2 * 2e8**10)


def test_what_has_no_flow_says_so():
    with pytest.raises(ScoreError, match="found none"):
        synflow(nn.ReLU(), PROBE)
    layers = [nn.Linear(2, 2, bias=False) for _ in range(40)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1e8)
    with pytest.raises(ScoreError, match="found inf"):
        synflow(nn.Sequential(*layers), PROBE)
