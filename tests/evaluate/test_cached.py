"""The cache: everybody is judged once."""

from __future__ import annotations

import pytest

from n2n.evaluate import Status, cached, fake
from n2n.evaluate.base import not_ok
from n2n.evaluate.cached import refusing


@pytest.fixture
def inner(world):
    return fake(world.space, lambda student: 0.5)


def test_known_students_are_not_judged_again(world, inner):
    evaluate = cached(inner)
    a, b, c = world.students(3)
    evaluate([a, b, a])
    again = evaluate([c, b, a])
    assert inner.batches == [(a.fingerprint, b.fingerprint), (c.fingerprint,)]
    assert [one.fingerprint for one in again] == [c.fingerprint, b.fingerprint, a.fingerprint]
    assert (evaluate.misses, evaluate.hits) == (3, 3)


def test_nobody_new_means_no_call(world, inner):
    evaluate = cached(inner)
    student = world.students(1)
    first = evaluate(student)
    assert evaluate(student) == first
    assert len(inner.batches) == 1


def test_an_inner_evaluator_that_loses_students_is_found_out(world):
    evaluate = cached(lambda students: [])
    with pytest.raises(ValueError, match="zip"):
        evaluate(world.students(2))


def test_an_interrupt_costs_one_student_where_they_are_judged_one_by_one(world, inner):
    a, b, c = world.students(3)

    def judge(students):
        if students[0] is b:
            raise KeyboardInterrupt
        return inner(students)

    evaluate = cached(judge, one_by_one=True)
    with pytest.raises(KeyboardInterrupt):
        evaluate([a, b, c])
    assert [one.fingerprint for one in evaluate.known([c, b, a])] == [a.fingerprint]
    assert inner.batches == [(a.fingerprint,)]


def test_a_student_that_is_refused_is_not_judged(world, inner):
    a, b, c = world.students(3)
    asked = []

    def refuse(student):
        asked.append(student)
        cost = world.space.cost(student)
        if student is not b:
            return None
        return not_ok(Status.INVALID, "too wide", b, cost, seconds=0.0, seed=0, fidelity="not judged")

    evaluate = refusing(cached(inner), refuse)
    results = evaluate([a, b, c, b])
    assert [one.status for one in results] == [Status.OK, Status.INVALID, Status.OK, Status.INVALID]
    assert results[1].reason == "too wide"
    assert inner.batches == [(a.fingerprint, c.fingerprint)]
    assert evaluate([b]) == [results[1]]
    assert asked == [a, b, c]
    assert refusing(inner, refuse)([b]) == [results[1]]
    assert len(inner.batches) == 1
