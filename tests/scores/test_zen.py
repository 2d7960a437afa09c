"""Zen against what Gaussian perturbations come to on average, and step by step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from n2n.networks import build_teacher
from n2n.scores import Probe, ScoreError
from n2n.scores.zen import zen


def probe_of(*shape: int, seed: int = 0) -> Probe:
    return Probe(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64), seed=seed)


def pointwise(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(16, 64, 1), *between, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def test_a_linear_map_multiplies_the_length_of_the_perturbation():
    # ||a W e||^2 is a^2 16 on average for each of 64 x 8 x 8 values: its root is .01 * 4 * 64, and little noise.
    assert zen(pointwise(), probe_of(8, 16, 8, 8)) == pytest.approx(math.log(0.01 * 4 * 64), abs=0.05)


def test_batch_norm_takes_nothing_away():
    # It divides by about 4 what it is given, which the term of its variances puts back.
    assert zen(pointwise(nn.BatchNorm2d(64)), probe_of(8, 16, 8, 8)) == pytest.approx(math.log(0.01 * 4 * 64), abs=0.05)


def test_weights_and_images_of_the_network_do_not_matter():
    network = pointwise(nn.BatchNorm2d(64))
    value = zen(network, probe_of(4, 16, 4, 4))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 3.0)
    ones = Probe(torch.ones(4, 16, 4, 4), torch.zeros(4, dtype=torch.int64))
    assert zen(network, ones) == value
    assert zen(network, probe_of(4, 16, 4, 4, seed=1)) != value


def test_a_residual_network_step_by_step():
    network, probe = build_teacher("resnet20", classes=3, channels=1, width=2, seed=0), probe_of(4, 1, 8, 8, seed=3)
    value = zen(network, probe)
    torch.manual_seed(3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight)
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # the running variance becomes that of the batch
        x = torch.randn(4, 1, 8, 8)
        perturbed = x + 0.01 * torch.randn(4, 1, 8, 8)
        features, scales, places = [], 0.0, []
        network.stages.register_forward_hook(lambda module, inputs, output: features.append(output))
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_hook(
                    lambda module, inputs, output: places.append((module, inputs[0].numel() / inputs[0].shape[1]))
                )
        network.train()(x)
        for module, count in places:
            biased = module.running_var * (count - 1) / count
            scales += 0.5 * math.log(float(biased.double().mean()))
        network(perturbed)
    lengths = [math.sqrt(sum(v**2 for v in row)) for row in (features[1] - features[0]).flatten(1).double().tolist()]
    assert value == pytest.approx(math.log(sum(lengths) / 4) + scales, rel=1e-5)


def test_an_mlp_is_read_before_its_classifier():
    network = nn.Sequential(nn.Linear(400, 300), nn.Linear(300, 2))
    assert zen(network, probe_of(32, 400)) == pytest.approx(math.log(0.01 * math.sqrt(400 * 300)), abs=0.05)


def test_a_network_that_does_not_answer_says_so():
    with pytest.raises(ScoreError, match="expected a last linear layer or convolution"):
        zen(nn.Flatten(), probe_of(2, 3))
    silent = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Threshold(1e9, 0.0), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ScoreError, match="zen: expected a finite score"):
        zen(silent, probe_of(2, 1, 2, 2))
