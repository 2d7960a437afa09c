"""What every way of judging must keep to; a new one adds itself to `EVALUATORS`."""

from __future__ import annotations

import functools
import math

import pytest

from n2n.evaluate import Evaluation, Status, cached, distillation, evaluation_seed, fake, ray_pool, scoring


def _distillation(world):
    return distillation(world.space, world.teacher, world.training, recipe=world.recipe, seed=7)


def _fake(world):
    return fake(world.space, lambda student: len(set(student.widths)) / 4, seed=7)


EVALUATORS = {
    "distillation": _distillation,
    "fake": _fake,
    "scoring": lambda world: scoring(world.space, world.training, batch=4, seeds=2, teacher=world.teacher, seed=7),
    "cached": lambda world: cached(_distillation(world)),
}


@pytest.fixture(scope="module", params=[*EVALUATORS, pytest.param("ray_pool", marks=pytest.mark.ray)])
def evaluate(request, world):
    if request.param != "ray_pool":
        yield EVALUATORS[request.param](world)
        return
    make = functools.partial(distillation, world.space, world.teacher, world.training, recipe=world.recipe, seed=7)
    with ray_pool(make, workers=1, threads=1) as pool:
        yield pool


def test_one_evaluation_each_in_order(evaluate, world):
    students = world.students(3)[::-1]
    judged = evaluate(students)
    assert [one.fingerprint for one in judged] == [one.fingerprint for one in students]
    for one, student in zip(judged, students, strict=True):
        assert isinstance(one, Evaluation)
        assert world.space.from_json(one.architecture) == student
        cost = world.space.cost(student)
        assert (one.parameters, one.macs) == (cost.parameters, cost.macs)
        assert one.status is Status.OK
        assert (one.score is None) != (one.accuracy is None)
        assert math.isfinite(one.score) if one.accuracy is None else 0 <= one.accuracy <= 1
        assert one.seconds >= 0
        assert one.seed == evaluation_seed(7, student.fingerprint)
        assert one.fidelity


def test_an_empty_batch_gives_nothing(evaluate):
    assert evaluate([]) == []


def test_repeats_within_a_batch_are_answered_alike(evaluate, world, without_seconds):
    one = world.students(1)[0]
    first, second = evaluate([one, one])
    assert without_seconds(first) == without_seconds(second)


def test_a_judgement_does_not_depend_on_its_company(evaluate, world, without_seconds):
    students = world.students(3)
    alone = [evaluate([one])[0] for one in students]
    together = evaluate(students[::-1])[::-1]
    assert [without_seconds(one) for one in alone] == [without_seconds(one) for one in together]
