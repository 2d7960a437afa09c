"""The parts of AZ-NAS by hand, and the blocks that they look at, on networks of different make."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from n2n.networks import build_teacher
from n2n.scores import Probe, ScoreError
from n2n.scores.az_nas import az_complexity, az_expressivity, az_progressivity, az_trainability, entropy
from n2n.scores.blocks import blocks_of
from search_spaces import nas_bench_201


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def probe(images: Tensor) -> Probe:
    return Probe(images, torch.zeros(len(images), dtype=torch.int64))


def pointwise(weight: list[list[float]]) -> nn.Conv2d:
    layer = nn.Conv2d(len(weight[0]), len(weight), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight)[:, :, None, None])
    return layer


class Tokens(nn.Module):
    """Patches as tokens [B, 4, 8], and two residual blocks on them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(1, 8, 4, stride=4), nn.Linear(8, 3)
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = tokens + torch.tanh(self.first(tokens))
        tokens = tokens + torch.tanh(self.second(tokens))
        return self.head(tokens.mean(1))


class Branches(nn.Module):
    """A block with two ways through it and one within; activations as functions, and in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        self.inner, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        stem = F.relu(self.stem(images), inplace=True)
        left = self.left(stem)
        joined = torch.cat([left + torch.relu(self.inner(left)), self.right(stem)], dim=1)[:, ::2].relu_()
        return self.head(joined.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("network", "size", "shapes"),
    [
        (
            build_teacher("resnet20", channels=1, width=2, seed=0),
            8,
            [(2, 8, 8)] * 4 + [(4, 4, 4)] * 3 + [(8, 2, 2)] * 3,
        ),
        (
            build_teacher("vgg11_bn", channels=1, width=2, seed=0),
            32,  # pooled between stages, and a stage ends behind its pooling
            [(2, 16, 16), (4, 8, 8), (8, 8, 8), (8, 4, 4), (16, 4, 4), (16, 2, 2), (16, 2, 2), (16, 2, 2)],
        ),
        (Tokens(), 8, [(8, 4), (8, 4), (8, 4)]),
        (Branches(), 8, [(2, 6, 6), (4, 4, 4)]),
    ],
)
def test_the_blocks_of(network, size, shapes):
    blocks = blocks_of(network, noise(2, 1, size, size), "test")
    assert [tuple(block.first(block.output).shape[1:]) for block in blocks] == shapes


def test_the_blocks_of_a_cell_network_are_its_cells() -> None:
    """Also where a cell has several boundaries of its own, or no weights: as the paper counts them."""
    images, space = noise(2, 3, 32, 32), nas_bench_201()
    shapes = [(16, 32, 32)] * 5 + [(32, 16, 16)] * 6 + [(64, 8, 8)] * 6
    for code in ("333333", "300303", "000100"):
        network = space.build(space.from_code(code), inherit=False, seed=0)
        blocks = blocks_of(network, images, "test")
        assert [tuple(block.output.shape[1:]) for block in blocks] == shapes
    assert az_progressivity(network, probe(images)) < math.inf
    with pytest.raises(ScoreError, match="a block passes on what it is given"):
        az_trainability(network, probe(images))
    nothing = space.build(space.from_code("000000"), inherit=False, seed=0)
    with pytest.raises(ScoreError, match="a block lets nothing of its input through"):
        az_trainability(nothing, probe(images))


def test_features_of_a_block_are_behind_its_activation():
    network = Branches()
    images = noise(2, 1, 8, 8)
    stem, joined = (block.output for block in blocks_of(network, images, "test"))
    assert torch.equal(stem, torch.relu(network.stem(images)))
    assert torch.equal(network.head(joined.mean(dim=(2, 3))), network(images))
    assert float(joined.detach().min()) == 0


def test_networks_without_maps_are_told():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    with pytest.raises(ScoreError, match="az_expressivity: expected feature maps"):
        az_expressivity(network, probe(noise(2, 1, 8, 8)))
    one = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    assert az_expressivity(one, probe(noise(2, 1, 8, 8))) > 0
    for score in (az_progressivity, az_trainability):
        with pytest.raises(ScoreError, match="at least two blocks with feature maps, one after the other, found 1"):
            score(one, probe(noise(2, 1, 8, 8)))


def test_entropy_by_hand():
    # Variances 3 : 1 along the axes.
    rows = torch.tensor([[math.sqrt(3), 0], [-math.sqrt(3), 0], [0, 1], [0, -1]], dtype=torch.float64)
    assert entropy(rows + 5) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert entropy(torch.eye(3, dtype=torch.float64)) == pytest.approx(math.log(2))  # three points span a plane
    assert entropy(torch.ones(3, 2, dtype=torch.float64)) == 0


def test_expressivity_and_progressivity_by_hand():
    # Noise of two channels is spread evenly, ln 2; the second layer keeps one of them, 0; the third adds nothing.
    keep = [[1.0, 0.0], [0.0, 0.0]]
    network = nn.Sequential(pointwise([[1.0, 0.0], [0.0, 1.0]]), pointwise(keep), pointwise(keep))
    network = nn.Sequential(network, nn.Flatten(), nn.Linear(2 * 32 * 32, 2))
    images = probe(noise(16, 2, 32, 32))
    assert az_expressivity(network, images) == pytest.approx(math.log(2), abs=1e-3)
    assert az_progressivity(network, images) == pytest.approx(-math.log(2), abs=1e-3)


def test_expressivity_of_a_network_with_numpy():
    network, images = build_teacher("resnet20", channels=1, width=2, seed=0), noise(4, 1, 8, 8)
    features: list[Tensor] = []
    for module in [network.relu, *(block for stage in network.stages for block in stage)]:
        module.register_forward_hook(lambda module, inputs, output: features.append(output.detach().double()))
    with torch.no_grad():
        network.train()(images)
    entropies = []
    for maps in features:
        values = np.linalg.eigvals(np.cov(maps.numpy().swapaxes(0, 1).reshape(maps.shape[1], -1))).real
        shares = [value / sum(values) for value in values if value > 1e-12]
        entropies.append(-sum(share * math.log(share) for share in shares))
    assert len(entropies) == 10
    assert az_expressivity(network, probe(images)) == pytest.approx(sum(entropies), rel=1e-4)
    assert az_progressivity(network, probe(images)) == pytest.approx(min(np.diff(entropies)), rel=1e-3)


@pytest.mark.parametrize(
    ("weight", "norm"), [([[1.0, 0.0], [0.0, -1.0]], 1), ([[0.0, 2.0], [1.0, 0.0]], 2), ([[0.3, 0.4], [0.0, 0.0]], 0.5)]
)
def test_trainability_of_a_linear_block_is_that_of_its_spectral_norm(weight, norm):
    network = nn.Sequential(pointwise([[1.0], [1.0]]), pointwise(weight), nn.Flatten(), nn.Linear(2 * 32 * 32, 2))
    images = probe(noise(16, 1, 32, 32))
    assert az_trainability(network, images) == pytest.approx(2 - norm - 1 / norm, abs=0.1)


@pytest.mark.parametrize("size", [32, 31])
def test_trainability_of_a_stride_counts_places_as_channels(size):
    # Each output is the mean of four inputs: the map from four places to one has the norm 1/2.
    pool = nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False)
    with torch.no_grad():
        pool.weight.copy_(torch.tensor([[0, 0, 0], [0, 0.25, 0.25], [0, 0.25, 0.25]]))
    network = nn.Sequential(pointwise([[1.0]]), pool, nn.Flatten(), nn.Linear(16**2, 2))
    value = az_trainability(network, probe(noise(16, 1, size, size)))
    assert value == pytest.approx(2 - 0.5 - 2, abs=0.1)


def test_trainability_adds_up_over_blocks_and_leaves_out_what_grows():
    layers = [pointwise([[1.0]]), pointwise([[2.0]]), pointwise([[4.0]]), nn.Flatten(), nn.Linear(32 * 32, 2)]
    images = probe(noise(16, 1, 32, 32))
    expected = ((2 - 2 - 0.5) + (2 - 4 - 0.25)) / 2
    assert az_trainability(nn.Sequential(*layers), images) == pytest.approx(expected, abs=1e-4)
    grown = [*layers[:3], nn.ConvTranspose2d(1, 1, 2, stride=2), nn.Flatten(), nn.Linear(64 * 64, 2)]
    assert az_trainability(nn.Sequential(*grown), images) == pytest.approx(expected, abs=1e-4)


def test_a_block_that_lets_nothing_through_has_none():
    network = nn.Sequential(pointwise([[1.0]]), pointwise([[0.0]]), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ScoreError, match="lets no gradient through"):
        az_trainability(network, probe(noise(2, 1, 2, 2)))


def test_tokens_have_every_part():
    images = probe(noise(8, 1, 8, 8))
    for score in (az_expressivity, az_progressivity, az_trainability):
        assert math.isfinite(score(Tokens(), images))


def test_complexity_is_twice_the_multiply_accumulates():
    assert az_complexity(nn.Sequential(pointwise([[1.0, 2.0]]), nn.Flatten()), probe(noise(3, 2, 5, 5))) == 2 * 25 * 2
