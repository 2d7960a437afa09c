"""Log-rank sums, worked by hand."""

from __future__ import annotations

import math

import pytest

from n2n.scores import aggregate
from n2n.scores.aggregate import ranks


def test_two_scores_by_hand():
    found = aggregate({"a": [5.0, 1.0, 3.0], "b": [-1.0, -2.0, 7.0]})  # ranks 3, 1, 2 and 2, 1, 3
    assert found == pytest.approx([math.log(2 / 3), 2 * math.log(1 / 3), math.log(2 / 3)])
    assert aggregate({"a": [4.0, 2.0]}) == pytest.approx([0, -math.log(2)])


def test_ranks_of_ties_and_missing_values():
    assert ranks([2.0, 1.0, 2.0, 3.0]) == [2.5, 1, 2.5, 4]
    assert ranks([math.nan, -math.inf, math.nan, 0.0, math.inf]) == [1.5, 3, 1.5, 4, 5]
    assert ranks([0.0, -0.0]) == [1.5, 1.5]


def test_only_the_order_of_a_score_matters():
    assert aggregate({"a": [1.0, 2.0, 9.0]}) == aggregate({"a": [-3.0, 1e9, math.inf]})


def test_nobody_has_no_values_and_what_does_not_fit_is_refused():
    assert aggregate({"a": [], "b": []}) == []
    with pytest.raises(ValueError, match=r"as many values in each, found \{'a': 2, 'b': 1\}"):
        aggregate({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(ValueError, match="at least one score"):
        aggregate({})
