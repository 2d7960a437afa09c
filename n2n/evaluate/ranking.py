"""How well one way of judging orders students, measured against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Places = np.ndarray[tuple[int], np.dtype[np.int64]]
FEWEST = 3
RESAMPLES = 1000


@dataclass(frozen=True)
class Ranking:
    """Kendall's tau-b in [-1, 1], and its bootstrap interval over students (`low` to `high`, 95%)."""

    tau: float
    low: float
    high: float
    students: int


def ranking(judged: Sequence[float], truth: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Ranking:
    """Kendall's tau-b of two orders of the same students; ties count as in Kendall (1945).

    The interval is the percentile bootstrap: students are drawn with replacement `resamples` times. A constant order
    says nothing: its tau is 0.

    Raises:
        ValueError: fewer than three students, lengths that differ, or values that are not finite.
    """
    first, second = _checked(judged, truth)
    taus = _taus(first, second, _drawn(len(first), resamples, seed))
    return _ranked(taus, len(first))


def ranking_gain(
    judged: Sequence[float],
    other: Sequence[float],
    truth: Sequence[float],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ranking:
    """By how much `judged` ranks better than `other` does: the difference of their taus against the same truth.

    In [-2, 2]. The interval is the percentile bootstrap of the difference, both taus on the same drawn students.

    Raises:
        ValueError: as for `ranking`.
    """
    first, wanted = _checked(judged, truth)
    second, _ = _checked(other, truth)
    drawn = _drawn(len(first), resamples, seed)
    return _ranked(_taus(first, wanted, drawn) - _taus(second, wanted, drawn), len(first))


def _checked(judged: Sequence[float], truth: Sequence[float]) -> tuple[Floats, Floats]:
    first, second = np.asarray(judged, dtype=float), np.asarray(truth, dtype=float)
    if len(first) != len(second) or len(first) < FEWEST:
        raise ValueError(
            f"a ranking needs two judgements each of at least {FEWEST} students; found {len(first)} and {len(second)}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a ranking needs finite values; leave out the students that were not judged")
    return first, second


def _drawn(students: int, resamples: int, seed: int) -> list[Places]:
    """Everybody, and then so many draws with replacement."""
    rng = np.random.default_rng(seed)
    return [np.arange(students), *(rng.integers(0, students, students) for _ in range(resamples))]


def _ranked(taus: Floats, students: int) -> Ranking:
    """The first value with the interval of the others."""
    low, high = np.quantile(taus[1:], (0.025, 0.975)) if len(taus) > 1 else (np.nan, np.nan)
    return Ranking(float(taus[0]), float(low), float(high), students)


def _taus(first: Floats, second: Floats, drawn: Sequence[Places]) -> Floats:
    """`tau_b = sum(a b) / sqrt(sum(a^2) sum(b^2))` over pairs of drawn students, `a` and `b` the signs of a pair in the
    two orders; 0 where an order is constant.

    The signs are taken once for all draws: a thousand calls of a library's tau take seconds.
    """
    a, b = (np.sign(values[:, None] - values[None, :]) for values in (first, second))  # [n, n]
    products, ours, theirs = a * b, np.abs(a), np.abs(b)
    found = []
    for places in drawn:
        pairs = np.ix_(places, places)
        norm = float(np.sqrt(ours[pairs].sum() * theirs[pairs].sum()))
        found.append(float(products[pairs].sum()) / norm if norm else 0.0)
    return np.array(found)
