"""Every objective trains a small student of another width and depth, and a transformer, on the digits."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from n2n.data import load
from n2n.distill.fit import fit
from n2n.distill.objectives import OBJECTIVES, Needs, Objective, crd
from n2n.distill.recipe import Recipe
from n2n.distill.teacher import Teacher
from n2n.networks import build_teacher

STEPS = Recipe(objective="kd", steps=4, batch_size=16, lr=0.02, views=1, reestimate=1)
AS_SAID = {"fsp": "fsp,adapter=true", "crd": "crd,negatives=32"}  # these need a word for so small a student and data
ONE_WIDTH = {"diswot_semantic"}  # compares channels one by one


class Unit(nn.Module):
    """A residual block."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.short = nn.Identity() if stride == 1 else nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, maps: Tensor) -> Tensor:
        return self.act(self.body(maps) + self.short(maps))


def resnet8(width: int) -> nn.Module:
    stem = nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    units = Unit(width, width, 1), Unit(width, 2 * width, 2), Unit(2 * width, 4 * width, 2)
    return nn.Sequential(*stem, *units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


class Patches(nn.Module):
    """A small transformer on patches."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 12, 2, stride=2)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(12, 2, 24, batch_first=True, activation=nn.GELU(), dropout=0.0) for _ in range(3)
        )
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).mT
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(dim=1))


@pytest.fixture(scope="module")
def data():
    return load("digits").training


@pytest.fixture(scope="module")
def teacher(data) -> Teacher:
    return Teacher(build_teacher("resnet20", seed=0, channels=1, width=8), data)


def trained(student: nn.Module, objective: str, data, teacher: Teacher) -> list[float]:
    losses: list[float] = []
    names = list(student.state_dict())
    fit(student, data, dataclasses.replace(STEPS, objective=objective), teacher=teacher, subset=torch.arange(64),
        progress=lambda step, total, loss: losses.append(loss))  # fmt: skip
    assert list(student.state_dict()) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())
    return losses


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_small_residual_network_is_trained(name, data, teacher):
    width = 8 if name in ONE_WIDTH else 4
    student = resnet8(width)
    before = [parameter.detach().clone() for parameter in student.parameters()]
    losses = trained(student, AS_SAID.get(name, name), data, teacher)
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    moved = [not torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True)]
    assert all(moved)


def test_objectives_of_ones_own_get_what_they_need_without_maps(data, teacher, monkeypatch):
    def scaled(student, teacher, batch, *, side):
        return (side(student.logits) - teacher.logits).square().mean()

    def opened(student, teacher, *, examples, classes, seed):
        assert (student.logits.shape[1], teacher.logits.shape[1], examples) == (10, 10, 64)
        return nn.Linear(classes, classes)

    def means(student, teacher, batch):
        assert batch.class_means.shape == (10, 32)
        return (student.logits @ batch.class_means).square().mean()

    monkeypatch.setitem(OBJECTIVES, "scaled", Objective("scaled", Needs(logits=True, side=True), scaled, opened))
    monkeypatch.setitem(OBJECTIVES, "means", Objective("means", Needs(class_means=True), means))
    for name in ("scaled", "means", "scaled + means + similarity"):
        losses = trained(resnet8(4), name, data, teacher)
        assert len(losses) == 4
        assert all(math.isfinite(loss) for loss in losses)


def test_crd_draws_from_the_images_that_are_trained_on(data, teacher, monkeypatch):
    asked, draw = [], crd.other_examples

    def recorded(index, count, examples, generator):
        asked.append((int(index.max()), examples))
        return draw(index, count, examples, generator)

    monkeypatch.setattr(crd, "other_examples", recorded)
    fit(resnet8(4), data, dataclasses.replace(STEPS, objective="crd,negatives=8"), teacher=teacher,
        subset=torch.arange(500, 564))  # fmt: skip
    assert {examples for _, examples in asked} == {64}
    assert max(largest for largest, _ in asked) == 63


@pytest.mark.parametrize(
    "name", ["hint", "attention", "vid", "similarity", "nd", "factor", "activation_boundary", "ofa"]
)
def test_a_transformer_is_trained_from_a_convolutional_network(name, data, teacher):
    losses = trained(Patches(), name, data, teacher)
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
