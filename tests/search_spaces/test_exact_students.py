"""Students whose weights and outputs can be worked out by hand."""

from __future__ import annotations

from collections import OrderedDict
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces import layer_removal, layer_shrinkage, weight_gradients
from search_spaces.base import Draft, SpaceError, replay
from search_spaces.teacher.architecture import TeacherArchitecture
from search_spaces.teacher.channels import WidthConflict
from search_spaces.teacher.inherit import IMPORTANCE, keep_indices
from search_spaces.teacher.removal import canonical, removal_plan
from search_spaces.teacher.student_builder import build


def small_conv() -> nn.Module:
    """conv(1→4), norm, relu, flatten of 2x2 positions, linear(16→3); row norms 1, 4, 2, 3."""
    network = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 4, 1, bias=False),
            norm=nn.BatchNorm2d(4),
            act=nn.ReLU(),
            flat=nn.Flatten(),
            fc=nn.Linear(16, 3),
        )
    )
    with torch.no_grad():
        network.conv.weight.copy_(torch.tensor([1.0, -4.0, 2.0, 3.0]).reshape(4, 1, 1, 1))
        network.norm.weight.copy_(torch.tensor([4.0, 1.0, 2.0, 3.0]))
        network.norm.running_mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
        network.fc.weight.copy_(torch.arange(48.0).reshape(3, 16))
    return network.eval()


def shrunk(network: nn.Module, batch: torch.Tensor, importance: str = "l1", **widths: int) -> nn.Module:
    space = layer_shrinkage(network, batch)
    architecture = TeacherArchitecture(space.reading.fingerprint, widths=tuple(sorted(widths.items())))
    return space.build(architecture, importance=importance)


def test_sliced_conv_norm_and_flattened_linear() -> None:
    student = shrunk(small_conv(), torch.randn(2, 1, 2, 2), conv=2)
    assert student.conv.weight.flatten().tolist() == [-4.0, 3.0]  # channels 1 and 3, in their old order
    assert student.norm.weight.tolist() == [1.0, 3.0]
    assert student.norm.running_mean.tolist() == pytest.approx([0.2, 0.4])
    # Each channel has 4 positions behind the flatten: entries 4..7 and 12..15.
    assert student.fc.weight[0].tolist() == [4.0, 5.0, 6.0, 7.0, 12.0, 13.0, 14.0, 15.0]
    assert (student.conv.out_channels, student.norm.num_features, student.fc.in_features) == (2, 2, 8)


def test_norm_scales_rank_otherwise_than_rows() -> None:
    student = shrunk(small_conv(), torch.randn(2, 1, 2, 2), importance="bn_scale", conv=2)
    assert student.conv.weight.flatten().tolist() == [1.0, 3.0]


def test_kept_channels_stay_balanced_over_blocks() -> None:
    scores = torch.tensor([9.0, 8.0, 7.0, 0.1, 0.3, 0.2])
    assert keep_indices(scores, 2).tolist() == [0, 1]
    assert keep_indices(scores, 2, blocks=2).tolist() == [0, 4]
    assert keep_indices(scores, 4, blocks=2).tolist() == [0, 1, 4, 5]


def test_grouped_conv_keeps_the_columns_of_its_own_group() -> None:
    network = nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(1, 4, 1, bias=False),
            grouped=nn.Conv2d(4, 4, 1, groups=2, bias=False),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(4, 2),
        )
    )
    with torch.no_grad():
        network.first.weight.copy_(torch.tensor([1.0, 2.0, 4.0, 3.0]).reshape(4, 1, 1, 1))
        weight = torch.tensor([[1.0, 2.0], [5.0, 6.0], [30.0, 40.0], [70.0, 80.0]])
        network.grouped.weight.copy_(weight.reshape(4, 2, 1, 1))
    student = shrunk(network, torch.randn(2, 1, 2, 2), first=2, grouped=2)
    # first keeps 1 (of 0, 1) and 2 (of 2, 3); grouped keeps rows 1 and 3, columns 1 of group 0 and 0 of group 1.
    assert student.first.weight.flatten().tolist() == [2.0, 4.0]
    assert student.grouped.weight.flatten().tolist() == [6.0, 70.0]
    assert student.grouped.groups == 2


def test_middle_of_a_kernel() -> None:
    network = nn.Sequential(
        OrderedDict(a=nn.Conv2d(1, 1, 1), b=nn.Conv2d(1, 1, 5, padding=2), flat=nn.Flatten(), c=nn.Linear(16, 2))
    )
    space = layer_shrinkage(network, torch.randn(2, 1, 4, 4), factors=(0.6, 1.0), kernels=True)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, kernels=(("b", 3),)))
    assert torch.equal(student.b.weight, network.b.weight[:, :, 1:4, 1:4])
    assert student(torch.randn(2, 1, 4, 4)).shape == (2, 2)


def test_a_removed_linear_map_is_folded_into_its_consumer() -> None:
    """Without an activation in between, linear → linear is linear: removing the first loses nothing."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 9, bias=False), nn.Linear(9, 3))
    batch = torch.randn(4, 6)
    space = layer_removal(network, batch)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, removed=("2",)))
    torch.testing.assert_close(student(batch), network(batch))
    assert student[3].in_features == 5


def test_a_removed_conv_is_folded_through_a_flatten() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 5, 1, bias=False), nn.Flatten(), nn.Linear(5 * 9, 4)
    )
    batch = torch.randn(2, 2, 3, 3)
    space = layer_removal(network, batch)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, removed=("2",)))
    torch.testing.assert_close(student(batch), network(batch))


class Blocks(nn.Module):
    """Two residual blocks whose adds and activations are written in the user's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.conv1, self.norm1, self.act1 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.skip = nn.Conv2d(4, 6, 1, stride=2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.conv2(self.act1(self.norm1(self.conv1(x))))
        y += x
        x = F.relu(y)
        x = F.relu(self.down(x) + self.skip(x))
        return self.fc(x.mean((2, 3)))

    def without_first(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        return self.fc(F.relu(self.down(x) + self.skip(x)).mean((2, 3)))

    def without_down(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = F.relu(self.conv2(self.act1(self.norm1(self.conv1(x)))) + x)
        return self.fc(F.relu(self.skip(x)).mean((2, 3)))


@pytest.mark.parametrize(("branch", "rest"), [("conv1", "without_first"), ("down", "without_down")])
def test_an_emptied_branch_is_the_identity(branch: str, rest: str) -> None:
    torch.manual_seed(0)
    network, batch = Blocks().eval(), torch.randn(2, 1, 6, 6)
    space = layer_removal(network, batch, granularity="block")
    removed = next(found.layers for found in space.reading.branches if branch in found.layers)
    student = space.build(TeacherArchitecture(space.reading.fingerprint, removed=removed)).eval()
    assert torch.equal(student(batch), getattr(network, rest)(batch))
    assert space.cost(space.from_json(student_json(space.reading.fingerprint, removed))).parameters == sum(
        p.numel() for p in student.parameters()
    )


def student_json(teacher: str, removed: tuple[str, ...]) -> str:
    return TeacherArchitecture(teacher, removed).to_json()


def test_two_routes_to_an_emptied_branch_are_one_architecture() -> None:
    network, batch = Blocks(), torch.randn(2, 1, 6, 6)
    by_layer, by_block = layer_removal(network, batch), layer_removal(network, batch, granularity="block")
    names = [by_layer.decision_name(i) for i in range(by_layer.num_decisions)]
    weights_gone = by_layer.student(replay(by_layer, tuple(int(n not in {"conv1", "conv2"}) for n in names)))
    all_gone = by_layer.student(
        replay(by_layer, tuple(int(n not in {"conv1", "conv2", "norm1", "act1"}) for n in names))
    )
    block = by_block.student(replay(by_block, (0, *(1,) * (by_block.num_decisions - 1))))
    assert weights_gone == all_gone == block
    assert weights_gone.fingerprint == block.fingerprint


def test_removal_that_breaks_an_add_is_not_legal() -> None:
    """conv1 (4→8) may go and conv2 (8→4) may go, but either alone leaves 4 channels to meet 8."""

    class Bottle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 8), nn.Linear(8, 4)
            self.wide, self.fc = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            x = x + self.down(torch.tanh(self.up(x)))
            return self.fc(self.wide(x))

    space = layer_removal(Bottle(), torch.randn(2, 3))
    names = [space.decision_name(i) for i in range(space.num_decisions)]
    assert names == ["up", "down", "wide"]
    first = space.initial()
    assert space.legal(first).tolist() == [True, True]  # `down` then takes 4 channels: it is refitted
    second = space.apply(first, 0)
    assert space.legal(second).tolist() == [True, True]  # nothing is left of the branch: the identity
    assert space.legal(space.apply(first, 1)).tolist() == [False, True]  # 8 channels would meet 4
    with pytest.raises(SpaceError, match=r"action 0 is not legal for down; legal are 1"):
        space.apply(space.apply(first, 1), 0)


class Widening(nn.Module):
    """A block whose first conv widens, whose second keeps that width, beside a projection; then one more conv."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.skip = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1)
        self.conv1, self.norm1, self.act1 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        self.conv2, self.norm2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.last, self.fc = nn.Conv2d(6, 6, 1), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x))))) + self.skip(x)
        return self.fc(self.last(x).mean((2, 3)))


def test_what_is_legal_and_what_it_costs_is_that_of_the_whole_graph() -> None:
    """The quick ways to legality and cost against the walk over the graph and the built network, for every draft."""
    space = layer_removal(Widening().eval(), torch.randn(2, 1, 4, 4))
    legal = 0
    for actions in product((0, 1), repeat=space.num_decisions):
        draft = space.initial()
        for action in actions:
            removed = space._removed(Draft((*draft.actions, 0)))
            try:
                removal_plan(space.reading, canonical(space.reading, removed))
                fits = True
            except WidthConflict:
                fits = False
            assert space.legal(draft).tolist() == [fits, True]
            if action == 0 and not fits:
                break
            draft = space.apply(draft, action)
        else:
            legal += 1
            student = space.student(draft)
            assert space._cost_of(draft) == space.cost(student)
            built = build(space.reading, student)
            assert space.cost(student).parameters == sum(value.numel() for value in built.parameters())
    assert 0 < legal < 2**space.num_decisions


def test_every_importance_keeps_the_asked_width_and_taylor_needs_gradients() -> None:
    network, batch = small_conv(), torch.randn(4, 1, 2, 2)
    gradients = weight_gradients(network, batch, torch.tensor([0, 1, 2, 0]))
    space = layer_shrinkage(network, batch, gradients=gradients)
    architecture = TeacherArchitecture(space.reading.fingerprint, widths=(("conv", 2),))
    for importance in IMPORTANCE:
        student = space.build(architecture, importance=importance)
        assert student(batch).shape == (4, 3)
    with pytest.raises(SpaceError, match=r"gradient of conv\.weight"):
        layer_shrinkage(network, batch).build(architecture, importance="taylor")
    with pytest.raises(SpaceError, match="expected one of l1, l2"):
        space.build(architecture, importance="l3")
    assert all(p.grad is None for p in network.parameters())


def test_taylor_keeps_what_the_loss_feels() -> None:
    """|Σ w g| of a row: channel 0 has the smallest weight, but alone reaches the output."""
    network, batch = small_conv(), torch.ones(4, 1, 2, 2)
    with torch.no_grad():
        network.fc.weight[:, 4:] = 0.0
    gradients = weight_gradients(network, batch, torch.tensor([0, 1, 2, 0]))
    space = layer_shrinkage(network, batch, gradients=gradients)
    architecture = TeacherArchitecture(space.reading.fingerprint, widths=(("conv", 1),))
    student = space.build(architecture, importance="taylor")
    assert student.conv.weight.flatten().tolist() == [1.0]
