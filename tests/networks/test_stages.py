"""Where the last stage of a network is, what is read there, and that no hook stays behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from n2n.networks import build_teacher
from n2n.networks.stages import StageError, last_stage, reading


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def convolutional(*tail: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), *tail)


class Reused(nn.Module):
    """One activation for maps, maps of one place, and vectors; something in place behind the last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.act, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.hidden, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.act(self.second(self.act(self.first(inputs))))
        maps.mul_(3)  # [B, 6, 2, 2]
        pooled = self.act(self.pool(maps))
        return self.head(self.act(self.hidden(pooled.flatten(1))))


class Tokens(nn.Module):
    """Patches as tokens [B, 4, 8], one block, and with `norm` a norm over the tokens."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        self.patches, self.block = nn.Conv2d(1, 8, 3, stride=3), nn.Identity()
        self.norm, self.head = nn.LayerNorm(8) if norm else None, nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.block(self.patches(inputs).flatten(2).mT)
        if self.norm is not None:
            tokens = self.norm(tokens)
        return self.head(tokens.mean(1))


IMAGES = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("network", "module", "shape"),
    [
        (convolutional(nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)), "2", (4, 6, 6)),
        (convolutional(nn.ReLU(), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(16, 3)), "3", (4, 2, 2)),
        (convolutional(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), "2", (4, 6, 6)),
        (convolutional(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)), "2", (4, 6, 6)),
        (convolutional(nn.Sequential(nn.ReLU(), nn.Dropout()), nn.Flatten(), nn.Linear(144, 3)), "2.0", (4, 6, 6)),
        (Reused(), "act", (6, 2, 2)),
        (Tokens(norm=True), "norm", (8, 4)),
        (build_teacher("resnet20", seed=0, channels=1, width=4), "stages.2.2.relu2", (16, 2, 2)),
    ],
)
def test_the_last_stage(network, module, shape):
    stage = last_stage(network, IMAGES)
    assert stage.shape == shape
    assert stage.module == module
    assert stage.bytes == 4 * torch.Size(shape).numel()


def test_an_axis_of_sequences_is_a_spatial_one():
    network = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    assert last_stage(network, torch.randn(2, 2, 6)).shape == (3, 4)


def test_networks_without_one_are_refused_and_what_to_do_is_said():
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(
        StageError, match=r"the network \(Sequential\) has no feature maps.* none among 5 .*; take another"
    ):
        last_stage(network, IMAGES, instead="take another")
    with pytest.raises(StageError, match=r"\(Tokens\): the last maps are \[2, 4, 8\].*'block'.*; take another"):
        last_stage(Tokens(norm=False), IMAGES, instead="take another")


def test_looking_for_it_changes_nothing():
    network = convolutional(nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3)).train()
    network[1].eval()
    before, states = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    last_stage(network, IMAGES)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == states
    assert hooks(network) == 0
    with pytest.raises(RuntimeError):
        last_stage(network, torch.randn(2, 1, 5, 5))  # the linear layer does not fit
    assert hooks(network) == 0


def test_what_is_read_is_the_module_s_own_output_before_anything_works_on_it_in_place():
    network = Reused()
    with reading(network, last_stage(network, IMAGES)) as reader:
        network(IMAGES)
        maps = reader.take()
    expected = network.act(network.second(network.act(network.first(IMAGES))))
    torch.testing.assert_close(maps, expected)
    assert maps.requires_grad
    assert hooks(network) == 0


def test_tokens_are_read_as_channels_and_places():
    network = Tokens(norm=True)
    with reading(network, last_stage(network, IMAGES)) as reader:
        network(IMAGES)
    expected = network.norm(network.patches(IMAGES).flatten(2).mT)  # [B, N, D]
    torch.testing.assert_close(reader.take(), expected.permute(0, 2, 1))


def test_hooks_are_gone_after_an_error():
    network = convolutional(nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    stage = last_stage(network, IMAGES)
    with pytest.raises(RuntimeError), reading(network, stage):
        network(torch.randn(2, 1, 5, 5))  # the linear layer does not fit
    assert hooks(network) == 0


def test_maps_are_handed_out_once():
    network = convolutional(nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    stage = last_stage(network, IMAGES)
    with reading(network, stage) as reader:
        assert hooks(network) == 1
        network(IMAGES)
    reader.take()
    with pytest.raises(RuntimeError, match=r"module '2' gave no maps \[B, 4, 6, 6\] in this pass"):
        reader.take()
