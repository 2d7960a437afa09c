"""The front against a brute-force search over all pairs of points."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from n2n.evaluate.base import Evaluation, Status
from n2n.search.front import front, pareto

points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=25)


def dominated(one: tuple[int, int], by: tuple[int, int]) -> bool:
    return by[0] <= one[0] and by[1] >= one[1] and by != one


@given(points)
def test_the_front_is_what_nothing_dominates(found: list[tuple[int, int]]) -> None:
    kept = [found[index] for index in pareto([cost for cost, _ in found], [gain for _, gain in found])]
    expected = {one for one in found if not any(dominated(one, other) for other in found)}
    assert set(kept) == expected
    assert len(kept) == len(expected)
    assert kept == sorted(kept)


def test_of_equal_points_the_first_stands() -> None:
    assert pareto([3, 1, 1], [5, 2, 2]) == [1, 0]


def test_as_many_costs_as_gains() -> None:
    with pytest.raises(ValueError, match="2 costs and 1 gains"):
        pareto([1, 2], [1])


def test_only_judged_students_are_on_the_front_and_macs_have_their_own() -> None:
    big = Evaluation("a", "{}", Status.OK, "", 0.9, 0.1, parameters=100, macs=10, seconds=0, seed=0, fidelity="f")
    slow = replace(big, fingerprint="b", accuracy=0.8, parameters=50, macs=20)
    failed = replace(big, fingerprint="c", status=Status.FAILED, reason="nan", accuracy=None, parameters=1, macs=1)
    assert [one.fingerprint for one in front([big, slow, failed])] == ["b", "a"]
    assert [one.fingerprint for one in front([big, slow, failed], by="macs")] == ["a"]
