"""Live layers and path lengths, worked by hand and, for cells, by walking their edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from n2n.scores import Probe, ScoreError
from n2n.scores.paths import Layer, Paths, live_params, path_length, paths_of
from search_spaces import PUBLISHED, nas_bench_201
from search_spaces.nas_bench_201 import CONV1, CONV3, EDGES, NONE


def probe_of(*shape: int) -> Probe:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Probe(images, torch.zeros(len(images), dtype=torch.int64))


def test_a_chain_by_hand():
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.LayerNorm(3), nn.Linear(3, 2))
    found = paths_of(network, probe_of(5, 4), "test")
    assert found == Paths((Layer(12, 12, 1, 1.0), Layer(6, 6, 1, 1.0)), longest=2, blurs=0.0)
    assert (found.parameters, found.macs, found.mean_length) == (18, 18, 2.0)


class Branches(nn.Module):
    """A residual branch, one that nobody takes, one that takes zeros, and one that gives the same for all images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.unused, self.of_zeros = nn.Linear(4, 4), nn.Linear(4, 4)
        self.token = nn.Parameter(torch.ones(1, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        self.unused(x)
        x = x + self.second(torch.relu(self.first(x))) + self.of_zeros(torch.zeros_like(x)) + self.token
        logits: Tensor = self.head(x)
        return logits


def test_what_no_image_gets_through_is_not_live():
    # Two paths, over stem, head and 0 or 2 layers.
    found = paths_of(Branches(), probe_of(3, 4), "test")
    assert (found.parameters, len(found.layers), found.mean_length, found.longest) == (3 * 16 + 8, 4, 3.0, 4)


def test_a_shared_weight_counts_once_and_each_of_its_layers():
    layer = nn.Linear(4, 4)
    found = paths_of(nn.Sequential(layer, nn.ReLU(), layer), probe_of(3, 4), "test")
    assert (found.parameters, found.macs, len(found.layers)) == (16, 32, 2)


def test_a_weight_made_of_parameters_counts():
    network = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    assert live_params(network, probe_of(3, 4)) == 3 * 4 + 3  # the direction, and a scale [3, 1] for each output


def cell_by_hand(code: str) -> tuple[int, int, float] | None:
    """Live 1x1 and 3x3 convolutions of a cell and the mean number of convolutions on a path; None without a path."""
    digits = [int(digit) for digit in code]
    edges = {edge: digit for edge, digit in zip(EDGES, digits, strict=True) if digit != NONE}
    ways = ((0, 3), (0, 1, 3), (0, 2, 3), (0, 1, 2, 3))
    taken = [[(way[i + 1], way[i]) for i in range(len(way) - 1)] for way in ways]
    open_ways = [way for way in taken if all(edge in edges for edge in way)]
    if not open_ways:
        return None
    live = {edge for way in open_ways for edge in way}
    kinds = [edges[edge] for edge in live]
    lengths = [sum(edges[edge] in (CONV1, CONV3) for edge in way) for way in open_ways]
    return kinds.count(CONV1), kinds.count(CONV3), sum(lengths) / len(lengths)


@pytest.mark.parametrize("code", ["333333", "421211", "013000", "300300", "003311", "130002", "111111", "300030"])
def test_cells_against_a_walk_over_their_edges(code: str):
    network = nas_bench_201().build(nas_bench_201().from_code(code))
    found = cell_by_hand(code)
    if found is None:
        with pytest.raises(ScoreError, match="live_params: expected a convolution or matrix product between images"):
            live_params(network, probe_of(2, 3, 8, 8))
        return
    ones, threes, length = found
    around = 3 * 16 * 9 + 10 * 64
    for width in (16, 32):
        around += width * 2 * width * (9 + 1) + (2 * width) ** 2 * 9
    squares = 5 * (16**2 + 32**2 + 64**2)
    assert live_params(network, probe_of(2, 3, 8, 8)) == around + squares * (ones + 9 * threes)
    # Stem, classifier, and between stages two layers or the one beside them.
    assert path_length(network, probe_of(2, 3, 8, 8)) == pytest.approx(2 + 2 * 1.5 + 15 * length)


def test_every_space_has_live_layers():
    for name, opens in PUBLISHED.items():
        space = opens(classes=10, channels=3, image_size=16)
        draft = space.initial()
        while draft.cursor < space.num_decisions:
            draft = space.apply(draft, space.num_actions - 1)
        network = space.build(space.student(draft))
        weights = sum(p.numel() for p in network.parameters() if p.ndim >= 2)
        assert 0.98 * weights < live_params(network, probe_of(2, 3, 16, 16)) <= weights, name


def test_outputs_that_no_image_reaches_are_told():
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, images: Tensor) -> Tensor:
            given: Tensor = self.layer(torch.zeros_like(images))
            return given

    with pytest.raises(ScoreError, match="expected a convolution or matrix product between images and outputs"):
        live_params(Constant(), probe_of(2, 4))
