"""What spaces say that they cover, against what their students really change; and ranges against all students."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_networks import random_network
from torch import nn

from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import SearchSpace, random_actions, replay
from search_spaces.coverage import chained_range, cost_range, coverage
from search_spaces.toy import toy


def weights(network: nn.Module, layer: str) -> list[tuple[int, ...]] | None:
    """The shapes of a layer's own parameters, or None where it is gone."""
    parts = [name for name, _ in network.named_modules()]
    if layer not in parts:
        return None
    module = network.get_submodule(layer)
    return None if type(module).__name__ == "Removed" else [tuple(p.shape) for p in module.parameters(recurse=False)]


def changed_by(space: SearchSpace, teacher: nn.Module, drafts: int) -> set[str]:
    """The layers with parameters that any of some students does not have, or has in another shape."""
    rng = np.random.default_rng(0)
    found = [replay(space, (0,) * space.num_decisions), *(random_actions(space, rng) for _ in range(drafts))]
    built = [space.build(space.student(draft)) for draft in found]
    rows = [row.name for row in space.describe() if row.parameters]
    return {name for name in rows if any(weights(one, name) != weights(teacher, name) for one in built)}


@pytest.mark.parametrize("seed", [0, 3, 8, 14])
def test_a_layer_is_covered_where_a_student_changes_it(seed: int) -> None:
    network, batch = random_network(seed)
    shrinkage = layer_shrinkage(network, batch)
    layers = {layer.name: layer for layer in coverage(shrinkage).layers if layer.parameters}
    assert {name for name, layer in layers.items() if layer.shrinkable} == changed_by(shrinkage, network, 3)
    assert not any(layer.removable for layer in layers.values())


def test_removal_covers_what_some_draft_drops() -> None:
    network, batch = random_network(3)
    removal = layer_removal(network, batch)
    covered = {layer.name for layer in coverage(removal).layers if layer.parameters and layer.removable}
    gone = set()
    for decision in range(removal.num_decisions):
        actions = tuple(int(at != decision) for at in range(removal.num_decisions))
        built = removal.build(removal.student(replay(removal, actions)))
        gone |= {row.name for row in removal.describe() if row.parameters and weights(built, row.name) is None}
    assert gone <= covered


def test_the_shares_by_hand() -> None:
    """Four linear layers: the first may shrink only, the second both, the last reads what shrinks."""
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    found = coverage(*(open_space(network, torch.zeros(1, 4)) for open_space in (layer_removal, layer_shrinkage)))
    status = {layer.name: layer.status for layer in found.layers}
    assert status == {"0": "shrinkable", "1": "removable", "2": "both", "3": "removable", "4": "shrinkable"}
    first, second, last = 4 * 8 + 8, 8 * 8 + 8, 8 * 3 + 3
    whole = first + second + last
    assert found.parameters == whole
    assert (found.removal, found.shrinkage, found.either) == (second / whole, 1.0, 1.0)
    assert (found.none, found.outside) == (0.0, 0)
    reasons = {layer.name: dict(layer.reasons) for layer in found.layers}
    assert reasons["0"] == {"layer_removal": "is the first layer"}
    assert reasons["4"] == {"layer_removal": "is the classifier", "layer_shrinkage": "is the network's output"}
    last_layer = found.layers[-1]
    assert (last_layer.group, last_layer.reads) == ("", "2")


class Positions(nn.Module):
    """Holds a parameter outside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(4))
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.first(x + self.positions))
        return out


def test_parameters_outside_layers_are_under_no_decision() -> None:
    found = coverage(layer_shrinkage(Positions(), torch.zeros(2, 4)))
    assert found.outside == 4
    assert found.none == pytest.approx(4 / (4 + 40 + 27))


def test_a_kernel_decision_covers_a_conv_of_frozen_width() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(start_dim=1))
    space = layer_shrinkage(network, torch.zeros(1, 1, 4, 4), kernels=True)
    assert [layer.status for layer in coverage(space).layers] == ["shrinkable", "frozen"]


def test_the_range_of_a_toy_space_against_all_its_students() -> None:
    space = toy()
    costs = [space.cost(one) for one in space.all()]
    found = cost_range(space)
    assert found.low.parameters == min(cost.parameters for cost in costs)
    assert found.low.macs == min(cost.macs for cost in costs)
    assert found.high == space.teacher_cost
    assert space.cost(found.smallest).parameters == found.low.parameters
    middle = cost_range(space, samples=2001).middle
    drawn = [space.cost(space.random(np.random.default_rng(seed))).parameters for seed in range(2000)]
    assert middle.parameters == pytest.approx(np.median(drawn), rel=0.05)
    assert all(layer.status == "shrinkable" for layer in coverage(space).layers)


def test_removal_then_shrinkage_goes_below_either() -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    batch = torch.zeros(1, 4)
    removal = layer_removal(network, batch)

    def narrowed(start: object) -> SearchSpace:
        return layer_shrinkage(network, batch, start=start)  # type: ignore[arg-type]

    both = chained_range(removal, narrowed)
    assert both.low.parameters == (4 + 1) * 1 + (1 + 1) * 3, "the layer in the middle goes, the first keeps one channel"
    assert both.low.parameters < cost_range(removal).low.parameters
    assert both.low.parameters < cost_range(narrowed(None)).low.parameters
    assert both.high == removal.teacher_cost
