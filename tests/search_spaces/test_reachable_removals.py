"""Layers that no legal draft removes are no decisions: against all drafts of small networks."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import pytest
import torch
from awkward_networks import CASES
from random_networks import random_network
from torch import nn

from search_spaces import layer_removal
from search_spaces.base import SpaceError
from search_spaces.layer_removal import LayerRemoval
from search_spaces.teacher.analysis import Reading
from search_spaces.teacher.reading import read
from search_spaces.teacher.removal import canonical, conflict

LARGE = {"inception", "shuffled", "res2", "torch-encoder"}
"""Awkward networks with too many drafts to try them all."""
MANY = {"chunked", "conv-gate", "dense", "depthwise", "linear-gate", "one-dimension"}
"""Those with so many that trying them takes a while."""
SMALL = (2, 3, 7, 8, 12, 18, 20, 24, 33, 35, 45, 52)
"""Random networks with few drafts."""
LEFT_OUT = {"chunked", "up-and-down", "norms", "own-attention", "torch-attention", "recurrent"}
"""Awkward networks of which some layer is left out."""


def removed_by_some_draft(reading: Reading) -> set[str]:
    """The layers that any legal draft removes, by trying all: each removal must fit when all later ones keep."""
    names = [layer.name for layer in reading.layers if not layer.reason]
    drafts, found = {frozenset[str]()}, set()
    for name in names:
        after = {draft | {name} for draft in drafts if not conflict(reading, canonical(reading, draft | {name}))}
        found |= {name} if after else set()
        drafts |= after
    return found


def decisions_of(reading: Reading) -> set[str]:
    space = LayerRemoval(reading, granularity="layer", kept=frozenset(), may_be_empty=True)
    return {space.decision_name(i) for i in range(space.num_decisions)}


def check(reading: Reading) -> set[str]:
    """Decisions are what drafts remove; gives the layers that are left out."""
    expected = removed_by_some_draft(reading)
    assert decisions_of(reading) == expected
    return {layer.name for layer in reading.layers if not layer.reason} - expected


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one in MANY else one for one in sorted(CASES.keys() - LARGE)]
)
def test_awkward_networks(name: str) -> None:
    make, inputs = CASES[name]
    left_out = check(read(make().eval(), inputs()))
    assert bool(left_out) == (name in LEFT_OUT), left_out


@pytest.mark.parametrize("seed", SMALL)
def test_random_networks(seed: int) -> None:
    check(read(*random_network(seed)))


def chain(*widths: int, groups: int) -> nn.Module:
    """Convs of such widths, a norm that insists on the last of them, and a classifier."""
    layers: list[tuple[str, nn.Module]] = [
        (f"conv{i}", nn.Conv2d(a, b, 1)) for i, (a, b) in enumerate(pairwise(widths))
    ]
    head = [("norm", nn.GroupNorm(groups, widths[-1])), ("flat", nn.Flatten()), ("fc", nn.Linear(4 * widths[-1], 3))]
    return nn.Sequential(OrderedDict([*layers, *head]))


@pytest.mark.parametrize(
    ("widths", "last"),
    [
        ((2, 12, 8, 6, 12), True),  # conv3 goes after conv1 and conv2: neither alone nor with conv0, the first layer
        ((2, 12, 16, 12, 8, 6, 16), True),  # conv5 goes after conv2, conv3 and conv4, if conv1 stays
        ((2, 8, 6, 12), False),  # whatever goes before, conv2 gets 8 or 6 channels
        ((2, 12, 12, 8, 12), True),  # 12 wide again once conv2 has gone, whether or not conv1 has
    ],
)
def test_a_removal_that_needs_several_earlier_ones(widths: tuple[int, ...], *, last: bool) -> None:
    network = chain(*widths, groups=2)
    reading = read(network, torch.randn(2, 2, 2, 2))
    left_out = check(reading)
    assert left_out == (set() if last else {f"conv{len(widths) - 2}"})


class Transformer(nn.Module):
    """An embedding with positions, then residual MLPs of which each layer alone changes the width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(6, 8), nn.Parameter(torch.randn(1, 7, 8))
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)) for _ in range(2))
        self.last, self.classifier = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x) + self.position
        for block in self.blocks:
            x = x + block(x)
        return self.classifier(torch.relu(self.last(x)).mean(1))


def test_the_reason_says_what_removes_them() -> None:
    space = layer_removal(Transformer(), torch.randn(2, 7, 6))
    reasons = {row.name: row.reason for row in space.describe()}
    assert {space.decision_name(i) for i in range(space.num_decisions)} == {"blocks.0.1", "blocks.1.1"}
    words = "can only go together with other layers; granularity 'block' removes the branch blocks.0"
    assert reasons["blocks.0.0"].startswith(words)
    assert reasons["blocks.0.2"].startswith(words)
    blocks = layer_removal(Transformer(), torch.randn(2, 7, 6), granularity="block")
    assert [blocks.decision_name(i) for i in range(blocks.num_decisions)] == ["blocks.0", "blocks.1"]
    assert "last turns 8 channels of unknown origin into 12" in reasons["last"]
    assert "no granularity removes it" in reasons["last"]


def test_with_a_layer_of_it_ignored_no_granularity_removes_the_branch() -> None:
    space = layer_removal(Transformer(), torch.randn(2, 7, 6), ignored_layers=["blocks.0.1"])
    reasons = {row.name: row.reason for row in space.describe()}
    assert "no granularity removes it" in reasons["blocks.0.0"]
    assert "granularity 'block' removes the branch blocks.1" in reasons["blocks.1.0"]


def test_where_nothing_can_go_the_reasons_are_told() -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 8, 1), nn.Conv2d(8, 12, 1), nn.GroupNorm(2, 12), nn.Flatten(), nn.Linear(12, 2)
    )
    with pytest.raises(
        SpaceError, match=r"no layer of .* \(.*1 cannot go alone \(2 divides 12 channels into 2 groups\)"
    ):
        layer_removal(network, torch.randn(2, 2, 1, 1), ignored_layers=["2"])
