"""A meter with a clock that the test winds."""

from __future__ import annotations

import pytest

from n2n.search.errors import SearchError
from n2n.search.limits import Limits, Meter


def test_the_first_limit_stops() -> None:
    now = [0.0]
    meter = Meter(Limits(evaluations=10, seconds=60.0), clock=lambda: now[0])
    assert meter.reached() == ""
    meter.spend(judged=4, hits=1)
    assert (meter.left, meter.hits, meter.reached()) == (6, 1, "")
    now[0] = 55.0
    assert meter.reached() == ""
    assert meter.reached(reserve=5.0) == "seconds"
    meter.spend(judged=6, hits=0)
    assert meter.reached() == "evaluations"


def test_a_policy_that_repeats_itself_ends() -> None:
    meter = Meter(Limits(evaluations=10, seconds=None, stale=2))
    meter.spend(judged=0, hits=5)
    assert meter.reached() == ""
    meter.spend(judged=1, hits=4)
    meter.spend(judged=0, hits=5)
    assert meter.reached() == "", "only batches in a row count"
    meter.spend(judged=0, hits=5)
    assert meter.reached() == "repeats"


@pytest.mark.parametrize(("evaluations", "seconds"), [(0, None), (3, -1.0)])
def test_limits_are_positive(evaluations: int, seconds: float | None) -> None:
    with pytest.raises(SearchError):
        Limits(evaluations, seconds)
