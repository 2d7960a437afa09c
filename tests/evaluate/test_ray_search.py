"""A search with Ray workers: the same front, one Ray for all stages, and nothing computed in every worker anew."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import n2n
from n2n.data import example_inputs, load
from n2n.distill.fit import train_teacher
from n2n.distill.recipe import Recipe
from n2n.distill.teacher import Teacher
from n2n.evaluate import distillation, fake, ray_pool
from n2n.evaluate.base import Evaluate
from n2n.evaluate.ray_cluster import ray_running
from n2n.networks import build_teacher
from search_spaces import layer_shrinkage
from search_spaces.base import SearchSpace

WORKERS = 2


@pytest.fixture
def by_value():
    """Workers cannot import test modules, so what is defined here travels whole."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.ray
def test_workers_find_the_same_front_as_one_process(tmp_path: Path) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // WORKERS))  # as in each worker; put back by the fixture
    data = load("digits")
    network = build_teacher("mlp", inputs=64, hidden=(16, 16), classes=10, seed=0)
    train_teacher(network, data.training, epochs=3, batch_size=32)

    def found(workers: int) -> list[tuple[str, float | None, int | None]]:
        result = n2n.search(
            network,
            example_inputs(data),
            data,
            out=tmp_path / str(workers),
            evaluations=8,
            rollouts=4,
            steps=4,
            final_epochs=0.1,
            finalists=1,
            workers=workers,
            progress=False,
        )
        assert result.evaluations == 8
        return [(one.fingerprint, one.accuracy, one.parameters) for one in result.front]

    assert found(WORKERS) == found(0)


def _constant(space: SearchSpace, told: dict[str, float]) -> Evaluate:
    value = told["score"]
    return fake(space, lambda student: value)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("by_value")
def test_pools_share_one_ray_and_what_is_prepared_travels(world) -> None:
    import ray

    told: dict[str, float] = {"score": 0.0}
    prepared: list[float] = []

    def prepare() -> None:
        prepared.append(told["score"])
        told["score"] += 0.25

    nodes = []
    a, b = world.students(2)
    with ray_running(1):
        for _ in range(2):
            with ray_pool(partial(_constant, world.space, told), workers=1, prepare=prepare) as pool:
                first, second = pool([a]), pool([b])
                assert first[0].accuracy == second[0].accuracy == told["score"]
            assert ray.is_initialized()
            nodes.append(ray.get_runtime_context().get_node_id())
    assert not ray.is_initialized()
    assert nodes[0] == nodes[1]
    assert prepared == [0.0, 0.25]  # once for each pool, not for each batch


class Counting(nn.Module):
    """Counts the batches that it looked at."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(images)


@pytest.mark.parametrize("steps", [3, 40])
def test_a_prepared_evaluator_asks_the_teacher_nothing(steps: int) -> None:
    data = load("digits")
    network = build_teacher("mlp", inputs=64, hidden=(8,), classes=10, seed=0)
    teacher = Teacher(Counting(network), data.training)
    recipe = Recipe(steps=steps, batch_size=64, views=3, reestimate=1)
    space = layer_shrinkage(network, example_inputs(data), factors=(0.5, 1.0))
    judge = distillation(space, teacher, data.training, recipe=recipe, subset=500)
    student = space.random(np.random.default_rng(1))
    judge.prepare()
    before = teacher.network.calls
    assert judge([student])[0].accuracy is not None
    assert teacher.network.calls == before
    distillation(space, teacher, data.training, recipe=recipe, subset=400)([student])
    assert teacher.network.calls > before  # another subset is another view, and is counted
