"""The two spaces over a teacher: the contract, decisions, budgets, reasons, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from random_networks import Residual, random_network
from space_contract import check_space
from torch import nn
from torch.nn import functional as F

from n2n.networks import build_teacher
from search_spaces import layer_removal, layer_shrinkage
from search_spaces.base import FEATURES, SpaceError, replay
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.reading import read

BATCH = torch.randn(2, 3, 16, 16)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return build_teacher("resnet20", width=8).eval()


@pytest.mark.parametrize("seed", [3, 14])
def test_the_spaces_meet_the_contract(seed: int) -> None:
    network, batch = random_network(seed)
    for space in (layer_removal(network, batch), layer_shrinkage(network, batch, kernels=True)):
        check_space(space, np.random.default_rng(seed))


def test_a_resnet_has_the_decisions_of_the_paper(resnet: nn.Module) -> None:
    """Strided convs, the first layer, the classifier and the pool are kept; all else is one decision each."""
    rows = {row.name: row for row in layer_removal(resnet, BATCH).describe()}
    frozen = [name for name, row in rows.items() if row.status == "frozen"]
    assert len(rows) == 64  # 21 convs (2 of them shortcuts), as many norms, 19 activations, the pool, the classifier...
    assert all(rows[name].reason for name in frozen)
    kinds = {rows[name].kind for name in frozen}
    assert kinds <= {"conv", "linear", "pool", "other"}
    blocks = layer_removal(resnet, BATCH, granularity="block")
    assert blocks.num_decisions == 9


def test_shrinkage_ties_what_the_adds_tie(resnet: nn.Module) -> None:
    """Three residual streams, and one inner group for each of the nine blocks."""
    space = layer_shrinkage(resnet, BATCH)
    assert space.num_decisions == 12
    groups = {row.group for row in space.describe() if row.status == "shrinkable"}
    assert len(groups) == 12


def test_rounding_and_smallest_widths(resnet: nn.Module) -> None:
    space = layer_shrinkage(resnet, BATCH, factors=(0.1, 0.5, 1.0), round_to=4)
    smallest = space.student(replay(space, (0,) * space.num_decisions))
    assert {width for _, width in smallest.widths} == {4}
    with pytest.raises(SpaceError, match="ascending"):
        layer_shrinkage(resnet, BATCH, factors=(0.5, 0.2, 1.0))
    with pytest.raises(SpaceError, match=r"nothing in .* can shrink .*too few for multiples of 64"):
        layer_shrinkage(resnet, BATCH, round_to=64)


def test_a_budget_is_met_by_construction(resnet: nn.Module) -> None:
    teacher = layer_shrinkage(resnet, BATCH).teacher_cost
    limit = teacher.parameters // 8
    space = layer_shrinkage(resnet, BATCH, max_parameters=limit, max_macs=teacher.macs // 4)
    rng = np.random.default_rng(0)
    costs = [space.cost(space.random(rng)) for _ in range(10)]
    assert all(cost.parameters <= limit and cost.macs <= teacher.macs // 4 for cost in costs)
    assert len({cost.parameters for cost in costs}) > 5
    wide = space.student(replay(space, (9,) * space.num_decisions))
    assert space.cost(wide).parameters <= limit
    with pytest.raises(SpaceError, match=r"no student has at most 10 parameters; the smallest has"):
        layer_shrinkage(resnet, BATCH, max_parameters=10)


def test_legal_actions_under_a_budget_are_all_that_can_end_within_it() -> None:
    """The mask against brute force over all students of a small network; the reserve is the smallest factor."""
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    factors = (0.25, 0.5, 1.0)
    free = layer_shrinkage(network, torch.randn(2, 4), factors=factors)
    costs = {(a, b): free.cost(free.student(replay(free, (a, b)))).parameters for a in range(3) for b in range(3)}
    limit = costs[0, 1]
    space = layer_shrinkage(network, torch.randn(2, 4), factors=factors, max_parameters=limit)
    first = [any(costs[a, b] <= limit for b in range(3)) for a in range(3)]
    assert space.legal(space.initial()).tolist() == first
    for a in np.flatnonzero(first):
        after = space.legal(space.apply(space.initial(), int(a))).tolist()
        assert after == [costs[int(a), b] <= limit for b in range(3)]


def test_ignored_layers_by_name_pattern_and_type(resnet: nn.Module) -> None:
    every = layer_removal(resnet, BATCH)
    without = layer_removal(resnet, BATCH, ignored_layers=["stages.0", "*.relu1", nn.BatchNorm2d])
    assert without.num_decisions < every.num_decisions
    names = [without.decision_name(i) for i in range(without.num_decisions)]
    assert not [n for n in names if n.startswith("stages.0.") or n.endswith("relu1") or "bn" in n]
    with pytest.raises(SpaceError, match=r"ignored_layers: 'stage9' matches no layer; the layers are"):
        layer_removal(resnet, BATCH, ignored_layers=["stage9"])


def test_a_removal_student_can_be_shrunk_and_read_by_either_space(resnet: nn.Module) -> None:
    removal = layer_removal(resnet, BATCH, granularity="block")
    start = removal.student(replay(removal, (0, 1) * 4 + (1,)))
    shrinkage = layer_shrinkage(resnet, BATCH, start=start)
    student = shrinkage.random(np.random.default_rng(1))
    assert student.removed == start.removed
    assert removal.from_json(student.to_json()) == student
    assert removal.cost(student) == shrinkage.cost(student)
    keep = shrinkage.student(replay(shrinkage, (9,) * shrinkage.num_decisions))
    assert keep == start
    with pytest.raises(SpaceError, match="removal student"):
        layer_shrinkage(resnet, BATCH, start=student)


def test_architectures_of_other_teachers_and_damaged_ones_are_refused(resnet: nn.Module) -> None:
    space = layer_removal(resnet, BATCH)
    other = layer_removal(build_teacher("resnet20", width=12), BATCH)
    foreign = other.random(np.random.default_rng(0))
    for ask in (space.build, space.cost):
        with pytest.raises(SpaceError, match="belongs to a teacher of structure"):
            ask(foreign)
    good = json.loads(space.random(np.random.default_rng(0)).to_json())
    bad = {
        "no JSON": "{",
        "another kind": json.dumps({**good, "kind": "toy"}),
        "unknown layer": json.dumps({**good, "removed": ["nothing"]}),
        "a width above the teacher's": json.dumps({**good, "removed": [], "widths": {"conv1": 9999}}),
        "a width of no group": json.dumps({**good, "removed": [], "widths": {"nothing": 2}}),
        "an even kernel": json.dumps({**good, "removed": [], "kernels": {"conv1": 2}}),
        "a removal that does not fit": json.dumps({**good, "removed": ["stages.1.0.conv1"]}),
        "a key too many": json.dumps({**good, "more": 1}),
    }
    for text in bad.values():
        with pytest.raises(SpaceError):
            space.from_json(text)


def test_wrong_example_inputs_and_hopeless_networks_say_so(resnet: nn.Module) -> None:
    with pytest.raises(SpaceError, match=r"does not run on the example inputs \[2, 16, 16\]"):
        layer_removal(resnet, torch.randn(2, 16, 16))
    with pytest.raises(SpaceError, match="no layer of Linear can be removed"):
        layer_removal(nn.Linear(3, 2), torch.randn(1, 3))


class Odd(nn.Module):
    """What cannot change: sorted channels, a layer that is called twice, weights used by the parent."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.twice = nn.Linear(8, 8)
        self.bare = nn.Linear(8, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(torch.relu(self.twice(self.first(x))))
        x = F.linear(x, self.bare.weight).sort(dim=1).values
        return self.last(x)


def test_what_is_not_understood_is_frozen_with_the_line() -> None:
    reading = read(Odd(), torch.randn(2, 6))
    reasons = {layer.name: layer.reason for layer in reading.layers}
    assert "called more than once" in reasons["twice"]
    with pytest.raises(SpaceError) as caught:
        layer_shrinkage(Odd(), torch.randn(2, 6))
    assert "test_teacher_spaces.py:" in str(caught.value)
    with pytest.raises(SpaceError, match="no layer of Odd can be removed"):
        layer_removal(Odd(), torch.randn(2, 6))


def test_observations_follow_the_draft(resnet: nn.Module) -> None:
    space = layer_removal(resnet, BATCH)
    column = {name: i for i, name in enumerate(FEATURES)}
    before = space.observe(space.initial())
    assert before.shape == (64, len(FEATURES))
    assert before.dtype == np.float32
    assert before[:, column["cursor"]].sum() == 1
    assert before[:, column["parameter_share"]].sum() == pytest.approx(1.0, abs=1e-5)
    assert before[:, column["mac_share"]].sum() == pytest.approx(1.0, abs=1e-5)
    first = int(np.flatnonzero(before[:, column["cursor"]])[0])
    after = space.observe(space.apply(space.initial(), 0))
    assert after[first, column["decided"]] == 1
    assert after[first, column["decision"]] == 0
    assert after[first, column["parameter_share"]] == 0
    assert before[first, column["parameter_share"]] > 0
    assert before[:, column["skip_start"]].sum() >= 9
    assert before[:, column["skip_end"]].sum() >= 9


def test_dict_inputs_and_forward_fn() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.c(torch.relu(self.b(self.a(left) + right)))

    inputs = {"left": torch.randn(2, 3), "right": torch.randn(2, 8)}
    space = layer_removal(Two(), inputs)
    names = [space.decision_name(i) for i in range(space.num_decisions)]
    assert names == ["b"]
    built = space.build(space.student(replay(space, (0,))))
    assert built(**inputs).shape == (2, 2)
    same = layer_removal(Two(), inputs, forward_fn=lambda network, x: network(x["left"], x["right"]))
    assert [same.decision_name(i) for i in range(same.num_decisions)] == names


def test_a_branch_is_one_decision_of_its_block() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        Residual("inverted", 6, 6, 1, in_place=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    space = layer_removal(network, BATCH, granularity="block")
    assert [space.decision_name(i) for i in range(space.num_decisions)] == ["1"]
    gone = space.student(replay(space, (0,)))
    assert set(gone.removed) == {"1.norm0", "1.conv1", "1.norm1", "1.act", "1.conv2", "1.norm2", "1.last"}
    assert gone == TeacherArchitecture(space.reading.fingerprint, gone.removed)


class Concatenated(nn.Module):
    """Channels behind a concatenation are followed, unless they are sorted: then no width can be passed on."""

    def __init__(self, *, sort: bool) -> None:
        super().__init__()
        self.sort = sort
        self.stem, self.same = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.narrow, self.fc = nn.Conv2d(16, 8, 1), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x, torch.relu(self.same(x))], dim=1)
        x = x.sort(dim=1).values if self.sort else x
        return self.fc(self.narrow(x).mean((2, 3)))


def test_a_removal_whose_width_nobody_can_follow_is_no_decision() -> None:
    space = layer_removal(Concatenated(sort=True), BATCH)
    assert [space.decision_name(i) for i in range(space.num_decisions)] == ["same"]
    reasons = {row.name: row.reason for row in space.describe()}
    assert "narrow turns 16 channels of unknown origin into 8" in reasons["narrow"]
    assert space.build(space.student(replay(space, (0,))))(BATCH).shape == (2, 4)


def test_the_widths_behind_a_concatenation_are_passed_on() -> None:
    space = layer_removal(Concatenated(sort=False), BATCH)
    student = space.build(space.student(replay(space, (0, 0))))
    assert student.fc.in_features == 16
    assert student(BATCH).shape == (2, 4)


def test_an_ignored_layer_stays_even_if_its_branch_loses_all_weights() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        Residual("plain", 6, 6, 1, in_place=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    space = layer_removal(network, BATCH, ignored_layers=["1.norm1"])
    student = space.student(replay(space, (0,) * space.num_decisions))
    assert "1.norm1" not in student.removed
    assert {"1.conv1", "1.conv2"} - set(student.removed)
    assert space.build(student)(BATCH).shape == (2, 4)


def test_only_kernels_that_keep_all_positions_may_shrink() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Conv2d(6, 6, (3, 5), padding=(1, 2)),
        nn.Conv2d(6, 6, 3, padding=(1, 0)),
        nn.Conv2d(6, 6, 3, padding="same"),
        nn.Flatten(),
        nn.LazyLinear(4),
    )
    network(BATCH)
    space = layer_shrinkage(network, BATCH, kernels=True)
    names = [space.decision_name(i) for i in range(space.num_decisions)]
    assert [name for name in names if name.endswith(".kernel")] == ["0.kernel"]


def test_two_branches_of_one_module_have_names_of_their_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.fc = nn.Linear(3, 5), nn.Linear(5, 2)
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x + torch.relu(self.a(x))
            return self.fc(x + torch.relu(self.b(x)))

    space = layer_removal(Two(), torch.randn(2, 3), granularity="block")
    assert [space.decision_name(i) for i in range(space.num_decisions)] == ["a", "b"]
