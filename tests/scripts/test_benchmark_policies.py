"""How the benchmark of learning counts, and what it makes of its rows."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest


def students(codes: str) -> list[SimpleNamespace]:
    return [SimpleNamespace(code=code) for code in codes]


def test_who_comes_again_is_not_counted(load: Callable[[str], ModuleType]) -> None:
    script = load("policies")
    judge = script.Counted({"a": 0.5, "b": 0.4, "c": 0.9}, budget=3)
    assert judge(students("aab")) == [0.5, 0.5, 0.4]
    assert judge(students("ba")) == [0.4, 0.5]
    with pytest.raises(script.Enough):
        judge(students("ca"))
    assert judge.bests == [(1, 0.5), (3, 0.9)]
    assert (len(judge.seen), judge.played) == (3, 6)


def test_a_search_that_stands_still_ends(load: Callable[[str], ModuleType]) -> None:
    script = load("policies")
    judge = script.Counted({"a": 0.5}, budget=2)
    for _ in range(15):
        judge(students("aaaaa"))
    with pytest.raises(script.Enough):
        judge(students("aaaaa"))


def test_the_best_within_a_budget(load: Callable[[str], ModuleType]) -> None:
    curves = load("curves")
    assert [curves.at("1:50.00 4:60.50 9:61.00", budget) for budget in (1, 3, 4, 8, 100)] == [50, 50, 60.5, 60.5, 61]


def test_intervals_by_hand(load: Callable[[str], ModuleType]) -> None:
    curves = load("curves")
    # Mean 2 and standard deviation 1 of three; the 97.5% quantile of t with two degrees of freedom is 4.3027.
    assert curves.interval([1.0, 2.0, 3.0]) == pytest.approx((2, 4.3027 / 3**0.5), rel=1e-4)
    # Equal variances of 1 over 3: Welch has four degrees of freedom, whose quantile is 2.7764.
    assert curves.difference([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx((3, 2.7764 * (2 / 3) ** 0.5), rel=1e-4)
    assert curves.difference([1.0, 1.0], [0.0, 0.0]) == (1, 0)


def test_the_words_say_who_is_above(load: Callable[[str], ModuleType]) -> None:
    curves = load("curves")
    rows = [
        {"agent": agent, "bests": f"1:{first} 5:{last}"}
        for agent, first, last in (
            ("x", 10, 30),
            ("x", 12, 30),
            ("x", 11, 31),
            ("y", 11, 20),
            ("y", 10, 21),
            ("y", 12, 20),
        )
    ]
    assert curves.verdict(rows, "x", "y", (1, 5)).startswith("`x` against `y`, in points: level at 1 (+0.00 ±")
    assert "above at 5 (+10.00" in curves.verdict(rows, "x", "y", (1, 5))
    assert "below at 5 (-10.00" in curves.verdict(rows, "y", "x", (1, 5))
    assert curves.verdict(rows, "x", "z", (1,)) == ""
