"""Ray workers: equal to one process bit for bit, and honest about what goes wrong in them."""

from __future__ import annotations

import functools
import os
import sys

import pytest

from n2n.evaluate import Status, distillation, fake, ray_pool
from n2n.evaluate.ray_pool import ray_pools
from search_spaces.base import Architecture

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def by_value():
    """Workers cannot import test modules, so what is defined here travels whole."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def one_ray():
    """One Ray for the pools of this module; starting it takes seconds."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_two_workers_judge_as_one_process_does(world, without_seconds):
    make = functools.partial(distillation, world.space, world.teacher, world.training, recipe=world.recipe, seed=3)
    students = world.students(5)
    with ray_pool(make, workers=2, threads=1) as pool:
        parallel = pool(students)
    assert [without_seconds(one) for one in parallel] == [without_seconds(one) for one in make()(students)]


def _score_with_bug(student: Architecture) -> float:
    return {}["a bug"]


def _score_that_kills(student: Architecture, victim: str) -> float:
    if student.fingerprint == victim:
        os._exit(1)
    return 0.5


def test_bugs_are_raised_and_dead_workers_recorded(world):
    students = world.students(3)
    with (
        ray_pool(functools.partial(fake, world.space, _score_with_bug), workers=1) as pool,
        pytest.raises(KeyError, match="a bug"),
    ):
        pool(students)
    score = functools.partial(_score_that_kills, victim=students[1].fingerprint)
    with ray_pool(functools.partial(fake, world.space, score), workers=1, space=world.space) as pool:
        judged = pool(students)
    assert [one.status for one in judged] == [Status.OK, Status.FAILED, Status.OK]
    assert "the worker died" in judged[1].reason
    assert judged[1].parameters == world.space.cost(students[1]).parameters


def test_no_workers_is_refused(world):
    with pytest.raises(ValueError, match="workers=0"):
        ray_pool(functools.partial(fake, world.space, _score_with_bug), workers=0)


def _process(student: Architecture, shift: int) -> float:
    """Half a unit and the process that judged, in the places behind it."""
    return 0.5 + shift * 0.25 + (os.getpid() % 10_000) * 1e-7


def _two(space, told):
    return {name: fake(space, functools.partial(_process, shift=shift)) for name, shift in told.items()}


def test_several_evaluators_share_the_workers(world):
    told, prepared = {"low": -2}, []

    def prepare():
        prepared.append(1)
        told["high"] = 1  # what is prepared here travels to the workers

    students = world.students(6)
    make = functools.partial(_two, world.space, told)
    with ray_pools(make, ("low", "high"), workers=2, space=world.space, prepare=prepare) as pools:
        low, high = pools["low"](students), pools["high"](students[::-1])
        assert [one.fingerprint for one in high] == [one.fingerprint for one in students[::-1]]
        assert all(one.accuracy < 0.01 for one in low)
        assert all(0.75 <= one.accuracy < 0.76 for one in high)
        first = {round(one.accuracy, 7) for one in low}
        second = {round(one.accuracy - 0.75, 7) for one in high}
        assert len(first | second) <= 2, "the same two processes"
        assert os.getpid() % 10_000 * 1e-7 not in first | second
    assert prepared == [1]


def test_a_worker_that_dies_on_one_rung_is_replaced_for_the_others(world):
    students = world.students(3)
    kills = functools.partial(_score_that_kills, victim=students[1].fingerprint)
    make = functools.partial(_killing, world.space, kills)
    with ray_pools(make, ("fine", "kills"), workers=1, space=world.space) as pools:
        assert [one.status for one in pools["kills"](students)] == [Status.OK, Status.FAILED, Status.OK]
        assert [one.accuracy for one in pools["fine"](students)] == [0.25] * 3
    with pytest.raises(ValueError, match="workers=0"), ray_pools(make, ("fine",), workers=0):
        pass


def _killing(space, kills):
    return {"fine": fake(space, _quarter), "kills": fake(space, kills)}


def _quarter(student: Architecture) -> float:
    return 0.25
