"""Kendall's tau by hand and by counting, and its interval."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from n2n.evaluate.ranking import ranking, ranking_gain


def test_by_hand() -> None:
    # Of the six pairs of four students one is the other way round: (5 - 1) / 6.
    assert ranking([1, 2, 3, 4], [1, 2, 4, 3]).tau == pytest.approx(4 / 6)
    assert ranking([1, 2, 3], [3, 2, 1]).tau == pytest.approx(-1)
    assert ranking([1, 1, 1], [3, 2, 1]).tau == 0


def test_it_counts_pairs_that_agree() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=20), rng.normal(size=20)
    signs = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j]) for i, j in combinations(range(20), 2)]
    found = ranking(first, second)
    assert found.tau == pytest.approx(np.mean(signs))
    assert found.low < found.tau < found.high
    assert found == ranking(first, second)


def test_more_students_give_a_narrower_interval() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for many in (10, 200):
        truth = rng.normal(size=many)
        found = ranking(truth + rng.normal(size=many), truth)
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize(("judged", "truth"), [([1, 2], [1, 2]), ([1, 2, 3], [1, 2, 3, 4])])
def test_too_few_students_are_refused(judged: list[float], truth: list[float]) -> None:
    with pytest.raises(ValueError, match="two judgements each of at least 3 students"):
        ranking(judged, truth)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ranking([1, 2, float("nan")], [1, 2, 3])


def counted(first: np.ndarray, second: np.ndarray) -> float:
    """Kendall's tau-b by counting pairs (Kendall 1945): 0 where one of the orders is constant."""
    pairs = list(combinations(range(len(first)), 2))
    a = [np.sign(first[i] - first[j]) for i, j in pairs]
    b = [np.sign(second[i] - second[j]) for i, j in pairs]
    norm = np.sqrt(float(np.sum(np.abs(a))) * float(np.sum(np.abs(b))))
    return float(np.dot(a, b) / norm) if norm else 0.0


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=3, max_size=12))
def test_tau_is_that_of_scipy_and_of_counting(drawn: list[tuple[int, int]]) -> None:
    first, second = (np.array(column, dtype=float) for column in zip(*drawn, strict=True))
    found = ranking(first, second, resamples=0)
    assert found.tau == pytest.approx(counted(first, second))
    library = kendalltau(first, second).statistic
    assert found.tau == pytest.approx(0.0 if np.isnan(library) else library)
    assert np.isnan(found.low)


def test_gain_by_hand() -> None:
    # Of the six pairs one is the other way round in the first and four are in the second: 4/6 - (2 - 4)/6.
    found = ranking_gain([1, 2, 4, 3], [4, 2, 1, 3], [1, 2, 3, 4])
    assert found.tau == pytest.approx(1)
    assert ranking_gain([1, 2, 3], [3, 2, 1], [1, 2, 3]).tau == pytest.approx(2)
    assert ranking_gain([1, 2, 3], [1, 1, 1], [1, 2, 3]).tau == pytest.approx(1)


def test_the_interval_of_a_gain_draws_the_same_students_for_both() -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=12)
    judged, other = truth + rng.normal(size=12), np.round(truth + rng.normal(size=12))
    found = ranking_gain(judged, other, truth, resamples=60, seed=5)
    draws = np.random.default_rng(5)
    each = []
    for _ in range(60):
        drawn = draws.integers(0, 12, 12)
        each.append(counted(judged[drawn], truth[drawn]) - counted(other[drawn], truth[drawn]))
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(each, (2.5, 97.5))))
    same = ranking_gain(judged, judged, truth)
    assert (same.tau, same.low, same.high, same.students) == (0, 0, 0, 12)


orders = st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=3, max_size=9)


@given(orders)
def test_a_gain_turns_its_sign_with_its_sides(drawn: list[tuple[int, int, int]]) -> None:
    judged, other, truth = (list(column) for column in zip(*drawn, strict=True))
    one = ranking_gain(judged, other, truth, resamples=20)
    back = ranking_gain(other, judged, truth, resamples=20)
    assert (one.tau, one.low, one.high) == pytest.approx((-back.tau, -back.high, -back.low))
    assert -2 <= one.low <= one.high <= 2
    stretched = ranking_gain([3 * value + 1 for value in judged], other, truth, resamples=20)
    assert stretched == one


def test_a_gain_needs_the_same_students() -> None:
    with pytest.raises(ValueError, match="two judgements each of at least 3 students; found 2 and 3"):
        ranking_gain([1, 2, 3], [1, 2], [1, 2, 3])
