"""The live capacity by hand, and on published networks from the counts of their tables."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from n2n.scores import Probe
from n2n.scores.live_capacity import capacity, live_capacity
from n2n.scores.paths import Layer, Paths
from search_spaces import cifar_resnet, nas_bench_201


def probe_of(*shape: int) -> Probe:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Probe(images, torch.zeros(len(images), dtype=torch.int64))


def test_the_formula_by_hand():
    # Resolutions of 16 + 9 and 144 weights; a path of 1 + .5 + .5 layers and one blur: (5 + 12) 2 / 3.
    layers = (Layer(16, 16, 64, 1.0), Layer(9, 9, 64, 0.5), Layer(144, 144, 1, 0.5))
    assert capacity(Paths(layers, longest=3, blurs=1.0)) == pytest.approx(34 / 3)


def test_a_network_by_hand():
    # 27 weights at 36 places, 27 at 9, 12 at one. The first pooling keeps the places, the second does not.
    blurring = nn.AvgPool2d(3, stride=1, padding=1)
    network = nn.Sequential(
        nn.Conv2d(3, 1, 3, padding=1), blurring, nn.MaxPool2d(2), nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4),
    )  # fmt: skip
    whole = 2 * math.sqrt(27) + math.sqrt(12)
    assert live_capacity(network, probe_of(2, 3, 6, 6)) == pytest.approx(whole * 3 / 4)
    network[1] = nn.Identity()
    assert live_capacity(network, probe_of(2, 3, 6, 6)) == pytest.approx(whole)


@pytest.mark.parametrize("depths", [(1, 1, 1), (3, 1, 5), (7, 7, 7)])
def test_resnets_by_their_depths(depths: tuple[int, int, int]):
    space = cifar_resnet(classes=10)
    network = space.build(space.from_code("-".join(map(str, depths))))
    first = 3 * 16 * 9 + depths[0] * 2 * 16 * 16 * 9
    roots = [math.sqrt(first), math.sqrt(640)]
    for width, depth in zip((32, 64), depths[1:], strict=True):
        # A block of 3x3 from half the width, its 1x1 beside it, and all others.
        roots.append(math.sqrt(width**2 / 2 * (9 + 1) + 9 * width**2 + (depth - 1) * 18 * width**2))
    assert live_capacity(network, probe_of(2, 3, 8, 8)) == pytest.approx(sum(roots))


def test_a_cell_with_a_pooling_on_half_of_its_paths():
    # 3x3 convolution on the edge 3<-0, and pooling on the way over node 1, which ends in a skip.
    code = "400310"
    network = nas_bench_201().build(nas_bench_201().from_code(code))
    weights = [
        3 * 16 * 9 + 5 * 9 * 16**2,
        *(width**2 / 2 * 10 + 9 * width**2 + 5 * 9 * width**2 for width in (32, 64)),
        640,
    ]
    layers, blurs = 2 + 2 * 1.5 + 15 * 0.5, 15 * 0.5
    expected = sum(math.sqrt(one) for one in weights) * layers / (layers + blurs)
    assert live_capacity(network, probe_of(2, 3, 8, 8)) == pytest.approx(expected)
