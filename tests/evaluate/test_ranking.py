"""Kendall's tau by hand and by counting, and its interval."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from n2n.evaluate.ranking import ranking


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
