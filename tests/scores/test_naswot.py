"""NASWOT against kernels worked by hand and counted unit by unit, and however a ReLU is written."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from n2n.networks import build_teacher
from n2n.scores import Probe, ScoreError
from n2n.scores.naswot import naswot


class Written(nn.Module):
    """A linear layer, a ReLU in some spelling, a classifier."""

    def __init__(self, activation, width: int = 20):
        super().__init__()
        self.first, self.last = nn.Linear(6, width), nn.Linear(width, 3)
        self.activation = activation

    def forward(self, inputs):
        return self.last(self.activation(self.first(inputs)))


def probe_of(images) -> Probe:
    images = torch.as_tensor(images, dtype=torch.float32)
    return Probe(images, torch.zeros(len(images), dtype=torch.int64))


def noise(*shape: int) -> Probe:
    return probe_of(torch.randn(shape, generator=torch.Generator().manual_seed(3)))


def identity(*activations: nn.Module) -> nn.Sequential:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.eye_(layer.weight)
    return nn.Sequential(layer, *activations)


def written(activation) -> nn.Module:
    torch.manual_seed(0)
    return Written(activation)


def test_two_images_and_two_units_by_hand():
    # The codes are 10 and 11, which agree on one of two units: K = [[2, 1], [1, 2]], det K = 3.
    assert naswot(identity(nn.ReLU()), probe_of([[1, -1], [2, 3]])) == pytest.approx(math.log(3))


def test_layers_add_their_units():
    # A ReLU of what a ReLU gave has the same codes: K = [[4, 2], [2, 4]], det K = 12.
    network = identity(nn.ReLU(), nn.ReLU())
    assert naswot(network, probe_of([[1, -1], [2, 3]])) == pytest.approx(math.log(12))


def test_a_unit_at_zero_is_off():
    # 00 and 11 agree on nothing: K = [[2, 0], [0, 2]], det K = 4.
    assert naswot(identity(nn.ReLU()), probe_of([[0, 0], [2, 3]])) == pytest.approx(math.log(4))


def test_one_value_for_each_image_is_one_unit():
    class Sums(nn.Module):
        def forward(self, images):
            return torch.relu(images.sum(dim=1))  # [B]

    # Off and on, of one unit: K = [[1, 0], [0, 1]].
    assert naswot(Sums(), probe_of([[-1, 0], [2, 3]])) == pytest.approx(0)


def determinant(matrix: list[list[float]]) -> float:
    """By Laplace's expansion along the first row."""
    if not matrix:
        return 1.0
    minors = ([row[:column] + row[column + 1 :] for row in matrix[1:]] for column in range(len(matrix)))
    return sum((-1) ** column * matrix[0][column] * determinant(minor) for column, minor in enumerate(minors))


def test_a_residual_network_counted_unit_by_unit():
    network, probe = build_teacher("resnet20", classes=3, channels=1, width=2, seed=0), noise(5, 1, 8, 8)
    codes: list[list[bool]] = [[] for _ in range(5)]

    def note(module, inputs, output):
        for code, image in zip(codes, output.detach(), strict=True):
            code.extend(value > 0 for value in image.flatten().tolist())  # off exactly where ReLU gave 0

    handles = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, nn.ReLU)]
    network.train()(probe.images)
    for handle in handles:
        handle.remove()
    assert len(codes[0]) > 1000
    kernel = [[float(sum(a == b for a, b in zip(one, other, strict=True))) for other in codes] for one in codes]
    assert naswot(network, probe) == pytest.approx(math.log(determinant(kernel)), rel=1e-9)


@pytest.mark.parametrize(
    "activation",
    [
        F.relu,
        torch.relu,
        lambda x: F.relu(x, inplace=True),
        lambda x: x.relu_(),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_(0),
        lambda x: x.clamp_min(0.0),
        lambda x: torch.clip(x, 0),
        lambda x: F.threshold(x, 0.0, 0.0),
        nn.Threshold(0.0, 0.0, inplace=True),
        F.relu6,
        nn.ReLU6(inplace=True),
        lambda x: F.hardtanh(x, 0.0, 1.0),
        nn.ReLU(inplace=True),
    ],
)
def test_a_relu_counts_however_it_is_written(activation):
    assert naswot(written(activation), noise(4, 6)) == naswot(written(nn.ReLU()), noise(4, 6))


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(), nn.PReLU(), nn.Hardswish(), nn.Hardtanh(), nn.Identity()),
        *(lambda x: x.clamp(min=1e-6), lambda x: x.clamp(max=0)),
    ],
)
def test_what_has_no_switch_at_zero_does_not_count(activation):
    with pytest.raises(ScoreError, match="expected ReLU units, found none"):
        naswot(written(activation), noise(4, 6))


def test_the_relu_inside_a_fused_transformer_layer_counts():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    units = []
    layer.linear1.register_forward_hook(lambda module, inputs, output: units.append(output > 0))
    probe = noise(4, 3, 8)
    value = naswot(layer, probe)
    code = units[0].flatten(1)  # [4, 48]
    kernel = [[float((one == other).sum()) for other in code] for one in code]
    assert value == pytest.approx(math.log(determinant(kernel)))


def test_batch_norm_takes_the_statistics_of_the_batch_and_dropout_is_out():
    network, probe = identity(nn.BatchNorm1d(2), nn.ReLU(), nn.Dropout(0.9), nn.ReLU()), probe_of([[5, 9], [7, 8]])
    # Less their means the inputs are (-1, .5) and (1, -.5): codes 01 and 10, twice. K = [[4, 0], [0, 4]].
    assert naswot(network, probe) == pytest.approx(math.log(16))


def test_what_has_no_finite_score_says_so():
    with pytest.raises(
        ScoreError, match="found a singular one from 2 ReLU units: to this network some images look alike"
    ):
        naswot(identity(nn.ReLU()), probe_of([[1, 1], [2, 3]]))
    with pytest.raises(ScoreError, match="there are more images than units; take at most "):
        naswot(written(nn.ReLU()), noise(64, 6))
    with pytest.raises(ScoreError, match=r"along the first axis .* found a ReLU of shape \[3, 4, 2\]"):
        naswot(nn.Sequential(nn.Unflatten(1, (3, 2)), Swap(), nn.ReLU()), noise(4, 6))
    broken = written(nn.ReLU())
    nn.init.constant_(broken.last.weight, math.nan)
    with pytest.raises(ScoreError, match="finite outputs"):
        naswot(broken, noise(4, 6))


class Swap(nn.Module):
    """Images along the second axis, as in networks that put time first."""

    def forward(self, inputs):
        return inputs.transpose(0, 1)
