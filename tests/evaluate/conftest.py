"""A toy space with real training data, for the tests of judging."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from n2n.data import TrainingData, from_tensors
from n2n.distill.recipe import Recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate import Evaluation
from search_spaces.base import Architecture
from search_spaces.toy import ToyArchitecture, ToySpace, toy

RECIPE = Recipe(steps=6, batch_size=16, lr=0.05)


@dataclass(frozen=True)
class World:
    """A space, data whose labels its teacher gives, and that teacher."""

    space: ToySpace
    training: TrainingData
    teacher: Teacher
    recipe: Recipe

    def students(self, count: int = 4) -> list[Architecture]:
        """Different students, smaller than the teacher, narrowest first."""
        full = self.space.teacher_cost.parameters
        smaller = [one for one in self.space.all() if self.space.cost(one).parameters < full]
        return sorted(smaller, key=lambda one: self.space.cost(one).parameters)[:: len(smaller) // count][:count]

    def whole(self) -> Architecture:
        """The teacher itself, as a student."""
        return whole(self.space)


def whole(space: ToySpace) -> ToyArchitecture:
    """The student that keeps everything."""
    return ToyArchitecture((space.width,) * space.num_decisions, space.width)


def make_world() -> World:
    space = toy()
    width = space.width
    teacher = space.build(whole(space))
    images = torch.randn(200, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = teacher(images)
    labels = (outputs[:, 1] - outputs[:, 0] > (outputs[:, 1] - outputs[:, 0]).median()).long()
    zeros, ones = (0.0,) * width, (1.0,) * width
    data = from_tensors(images, labels, name="toy data", classes=2, validation=0.25, mean=zeros, std=ones).training
    return World(space, data, Teacher(teacher, data), RECIPE)


class Building:
    """The toy space with another `build`, for students that go wrong."""

    def __init__(self, space: object, build: Callable[[Architecture], nn.Module]) -> None:
        self._space = space
        self._build = build

    def __getattr__(self, name: str) -> object:
        return getattr(self._space, name)

    def build(self, architecture: Architecture, **options: object) -> nn.Module:
        return self._build(architecture)


def outcome(evaluation: Evaluation) -> tuple[object, ...]:
    """Everything but the wall time."""
    return (
        evaluation.fingerprint,
        evaluation.architecture,
        evaluation.status,
        evaluation.reason,
        evaluation.accuracy,
        evaluation.loss,
        evaluation.parameters,
        evaluation.macs,
        evaluation.seed,
        evaluation.fidelity,
        evaluation.score,
    )


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture
def building():
    return Building


@pytest.fixture
def without_seconds():
    return outcome
