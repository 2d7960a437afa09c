"""The cache: everybody is judged once."""

from __future__ import annotations

import pytest

from n2n.evaluate import cached, fake


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
