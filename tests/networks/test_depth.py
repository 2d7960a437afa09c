"""Which maps two networks have in common: stages by size or depth, before activations, by name; that they are read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from n2n.networks import build_teacher
from n2n.networks.depth import matched, places
from n2n.networks.stages import Stage, StageError, reading_all
from n2n.networks.tracing import trace

IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SAY = "take another"


def resnet(width: int = 4) -> nn.Module:
    return build_teacher("resnet20", seed=0, channels=1, width=width)


class Block(nn.Module):
    """A transformer block, pre-norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.norm1(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class Transformer(nn.Module):
    """A small ViT with a class token."""

    def __init__(self, dim: int = 8, depth: int = 6) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(1, dim, 2, stride=2), nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


class Reused(nn.Module):
    """One in-place activation in three places, two of them with the same shape."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.act = nn.Conv2d(4, 6, 3, stride=2), nn.ReLU(inplace=True)
        self.head = nn.Linear(6 * 9, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.b(self.act(self.a(images))))
        return self.head(self.act(self.c(maps)).flatten(1))


def found(network: nn.Module, kind: str, **options: bool) -> tuple[Stage, ...]:
    return places(trace(network, IMAGES), kind, instead=SAY, **options)


def read(network: nn.Module, stages: tuple[Stage, ...]) -> tuple[Tensor, ...]:
    with reading_all(network, stages) as take:
        network(IMAGES)
        return take()


def test_the_stages_of_a_residual_network():
    network = resnet()
    assert [one.module for one in found(network, "stages")] == [f"stages.{at}.2.relu2" for at in range(3)]
    assert [one.shape for one in found(network, "stages")] == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]
    assert [one.module for one in found(network, "middle")] == ["stages.1.2.relu2"]
    assert [one.module for one in found(network, "last")] == ["stages.2.2.relu2"]
    ends = found(network, "stage_ends")
    assert [one.shape for one in ends[2:4]] == [(8, 4, 4), (8, 4, 4)]
    assert ends[2].module.startswith("stages.1.0.")


def test_what_enters_the_classifier():
    network = resnet()
    (place,) = found(network, "penultimate")
    (read_there,) = read(network.eval(), (place,))
    (last,) = read(network, found(network, "last"))
    torch.testing.assert_close(read_there, last.mean(dim=(2, 3)))


def test_maps_before_the_activation_are_read_before_it_works_in_place():
    network = Reused()
    ours, theirs = read(network, found(network, "stages", before_activation=True))
    first = torch.relu(network.a(IMAGES))
    torch.testing.assert_close(ours, network.b(first))
    torch.testing.assert_close(theirs, network.c(torch.relu(network.b(first))))
    assert ours.min() < 0
    after = read(network, found(network, "stages"))
    torch.testing.assert_close(after[0], torch.relu(ours))


def test_a_module_that_runs_twice_gives_the_maps_of_the_right_call():
    network = Reused()
    first, last, *_ = read(network, found(network, "stage_ends"))
    torch.testing.assert_close(first, torch.relu(network.a(IMAGES)))
    torch.testing.assert_close(last, torch.relu(network.b(first)))


def test_tokens_of_one_size_are_cut_by_depth():
    network = Transformer()
    stages = found(network, "stages")
    assert [one.module for one in stages] == ["blocks.0", "blocks.2", "blocks.3", "blocks.5"]
    assert {one.shape for one in stages} == {(8, 17)}
    assert [one.module for one in found(Transformer(depth=2), "stages")] == ["blocks.0", "blocks.1"]
    assert found(network, "penultimate")[0].shape == (8,)
    assert found(network, "middle")[0].module == "blocks.2"
    before = found(network, "stages", before_activation=True)
    assert [one.module for one in before] == [f"blocks.{at}.mlp.1" for at in (0, 2, 3, 5)]
    maps = read(network, before)
    assert maps[0].shape == (3, 16, 17)
    ends = found(network, "stage_ends")
    assert [one.module for one in ends[2:]] == ["blocks.0", "blocks.2", "blocks.2", "blocks.3", "blocks.3", "blocks.5"]


def test_blocks_that_hand_on_what_their_last_layer_gives():
    layers = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.GELU()) for _ in range(3)]
    network = nn.Sequential(nn.Conv2d(1, 8, 2, stride=2), nn.Flatten(2), Turned(), *layers, Mean(), nn.Linear(8, 10))
    assert [one.module for one in found(network, "stages")] == [f"{at}.norm2" for at in (3, 4, 5)]
    before = found(network, "stages", before_activation=True)
    assert [one.module for one in before] == [f"{at}.activation" for at in (3, 4, 5)]


class Turned(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return maps.mT


class Mean(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=1)


def test_networks_of_other_depths_are_matched_by_relative_depth():
    four = nn.Sequential(*(nn.Sequential(nn.Conv2d(1 if at == 0 else 4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
                           for at in range(3)), nn.Flatten(), nn.Linear(4, 10))  # fmt: skip
    two = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(16, 10))
    assert [one.shape[1] for one in found(four, "stages")] == [8, 4, 2]
    assert [one.shape[1] for one in found(two, "stages")] == [8, 2]
    ours, theirs = matched(trace(two, IMAGES), trace(four, IMAGES), "stages")
    assert [one.shape[1] for one in ours] == [8, 2]
    assert [one.shape[1] for one in theirs] == [4, 2]  # (1/2, 1) at the nearest of (1/3, 2/3, 1), the deeper of two
    back = matched(trace(four, IMAGES), trace(two, IMAGES), "stages")
    assert back == (theirs, ours)


def test_a_transformer_and_a_convolutional_network_are_matched():
    ours, theirs = matched(trace(Transformer(), IMAGES), trace(resnet(), IMAGES), "stages")
    assert [one.module for one in ours] == ["blocks.0", "blocks.3", "blocks.5"]
    assert [one.shape for one in theirs] == [(4, 8, 8), (8, 4, 4), (16, 2, 2)]


def test_named_layers_come_first():
    ours, theirs = trace(resnet(), IMAGES), trace(Transformer(), IMAGES)
    layers = (("stages.0", "blocks.1"), ("stages.1", "blocks.2"), ("stages.2", "blocks.4"))
    student, teacher = matched(ours, theirs, "stages", layers=layers)
    assert [one.module for one in student] == ["stages.0", "stages.1", "stages.2"]
    assert [one.module for one in teacher] == ["blocks.1", "blocks.2", "blocks.4"]
    assert matched(ours, theirs, "middle", layers=layers)[1][0].module == "blocks.2"
    assert matched(ours, theirs, "last", layers=layers)[1][0].module == "blocks.4"
    assert matched(ours, theirs, "penultimate", layers=layers)[0][0].pooled
    with pytest.raises(StageError, match="expected pairs in twos"):
        matched(ours, theirs, "stage_ends", layers=layers)
    with pytest.raises(StageError, match=r"\(ResNet\w*\): module 'stage.1' gives no maps .* such as .*stages\.1"):
        matched(ours, theirs, "stages", layers=(("stage.1", "blocks.1"),))
    (inside,), _ = matched(ours, theirs, "last", layers=(("stages.1.0", "blocks.0"),), before_activation=True)
    assert inside.entering  # of a block, what enters the activation that it ends with
    assert inside.module.startswith("stages.1.0.")
    (before,), _ = matched(ours, theirs, "last", layers=(("stages.1.0.relu1", "blocks.0"),), before_activation=True)
    assert before.entering


def test_what_a_network_lacks_is_said():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(StageError, match=r"\(Sequential\) has no feature maps.*; take another"):
        found(flat, "stages")
    with pytest.raises(StageError, match=r"no activation is a module.*\(--layer STUDENT=TEACHER\), or take another"):
        found(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)), "last", before_activation=True)
    with pytest.raises(StageError, match="no stage of two maps"):
        found(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)), "stage_ends")
    assert found(flat, "penultimate")[0].shape == (64,)
    with pytest.raises(StageError, match="no layer with weights that gives the logits"):
        found(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), "penultimate")


@pytest.mark.parametrize("make", [resnet, Transformer, Reused])
def test_looking_leaves_the_network_as_it_was(make):
    network = make().train()
    before = copy.deepcopy(network.state_dict())
    trace(network, IMAGES)
    read(network.eval(), found(network, "stages"))
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
