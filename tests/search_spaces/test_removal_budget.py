"""A hard budget on removal: whatever is legal ends within it, and there is always something legal."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from random_networks import random_network
from torch import nn

from n2n.networks import build_teacher
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import Cost, Draft, SearchSpace, SpaceError, random_actions


def all_costs(space: SearchSpace) -> list[Cost]:
    """The costs of all students, by trying every sequence of actions."""
    found = []
    for actions in itertools.product((0, 1), repeat=space.num_decisions):
        if all(space.legal(Draft(actions[:at]))[action] for at, action in enumerate(actions)):
            found.append(space.cost(space.student(Draft(actions))))
    return found


def bottleneck() -> nn.Module:
    """Whoever removes the narrow layer makes the one behind it wide."""
    layers = [nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 16), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(16, 16), nn.Linear(16, 3))


@pytest.mark.parametrize("rank", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("quantity", ["parameters", "macs", "bytes"])
def test_every_legal_way_ends_within_the_budget(quantity: str, rank: float) -> None:
    """`rank` 0 allows the smallest student only, 1 allows all."""
    network, batch = bottleneck(), torch.zeros(1, 16)
    free = all_costs(layer_removal(network, batch))
    costs = sorted(getattr(cost, quantity) for cost in free)
    limit = costs[int(rank * (len(costs) - 1))]
    space = layer_removal(network, batch, **{f"max_{quantity}": limit})
    bounded = all_costs(space)  # finds no draft without a legal action, or `legal` would not have led there
    assert bounded
    assert all(getattr(cost, quantity) <= limit for cost in bounded)
    within = sum(cost <= limit for cost in costs)
    assert within / 2 <= len(bounded) <= within, "most of those that meet the budget can be reached"
    assert len(bounded) == within or rank < 1.0


def test_no_draft_is_a_dead_end() -> None:
    for seed in range(8):
        network, batch = random_network(seed)
        try:
            teacher = layer_removal(network, batch).teacher_cost
            space = layer_removal(network, batch, max_parameters=0.7 * teacher.parameters, max_macs=0.9 * teacher.macs)
        except SpaceError as error:
            assert "no student has at most" in str(error) or "can be removed" in str(error)  # noqa: PT017
            continue
        rng = np.random.default_rng(seed)
        for _ in range(6):
            draft = space.initial()
            while draft.cursor < space.num_decisions:
                legal = np.flatnonzero(space.legal(draft))
                assert len(legal), f"seed {seed}: nothing is legal after {draft.actions}"
                draft = space.apply(draft, int(rng.choice(legal)))
            cost = space.cost(space.student(draft))
            assert cost.parameters <= 0.7 * teacher.parameters
            assert cost.macs <= 0.9 * teacher.macs


def test_the_first_layers_may_still_stay_where_others_can_go() -> None:
    network, batch = build_teacher("resnet20", width=4), torch.zeros(1, 3, 16, 16)
    teacher = layer_removal(network, batch).teacher_cost
    space = layer_removal(network, batch, max_parameters=0.5 * teacher.parameters)
    rng = np.random.default_rng(0)
    students = [random_actions(space, rng) for _ in range(8)]
    assert len({draft.actions for draft in students}) == 8
    assert any(1 in draft.actions[: space.num_decisions // 2] for draft in students)
    assert all(space.cost(space.student(draft)).parameters <= 0.5 * teacher.parameters for draft in students)
    assert space.num_decisions == layer_removal(network, batch).num_decisions


def test_an_impossible_budget_names_the_least_that_can_be_reached() -> None:
    with pytest.raises(SpaceError, match=r"no student has at most 9 bytes; the smallest has \d+ parameters, .* bytes"):
        layer_removal(bottleneck(), torch.zeros(1, 16), max_bytes=9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_size_budget_binds_shrinkage(dtype: torch.dtype) -> None:
    network = build_teacher("resnet20", width=4).to(dtype)
    batch = torch.zeros(1, 3, 16, 16, dtype=dtype)
    stored = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    space = layer_shrinkage(network, batch, max_bytes=0.3 * stored)
    assert space.teacher_cost.bytes == stored
    rng = np.random.default_rng(0)
    for _ in range(4):
        student = space.random(rng)
        built = space.build(student).state_dict()
        found = sum(value.numel() * value.element_size() for value in built.values())
        assert found == space.cost(student).bytes <= 0.3 * stored


class TwoPrecisions(nn.Module):
    """Two layers in single precision, and two in double."""

    def __init__(self) -> None:
        super().__init__()
        self.single = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
        self.double_ = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.double_(self.single(x).to(torch.float64))
        return out


def test_bytes_of_a_network_in_two_precisions() -> None:
    space = layer_shrinkage(TwoPrecisions(), torch.zeros(1, 4))
    assert space.teacher_cost.bytes == 4 * (5 * 6 + 7 * 5) + 8 * (6 * 8 + 9 * 3)
    student = space.student(Draft((0, 0)))  # one channel is left of the six, and one of the eight
    assert space.cost(student).bytes == 4 * (5 * 1 + 2 * 5) + 8 * (6 * 1 + 2 * 3)
