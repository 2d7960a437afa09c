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


def test_what_was_known_before_is_not_judged(world, inner):
    a, b = world.students(2)
    known = fake(world.space, lambda student: 0.25)([a])
    evaluate = cached(inner, known)
    assert [one.accuracy for one in evaluate([a, b])] == [0.25, 0.5]


def test_an_inner_evaluator_that_loses_students_is_found_out(world):
    evaluate = cached(lambda students: [])
    with pytest.raises(ValueError, match="zip"):
        evaluate(world.students(2))
