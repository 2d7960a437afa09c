"""How well one way of judging orders students, measured against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
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
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(first), len(first)) for _ in range(resamples)]
    low, high = _interval([_tau(first[one], second[one]) for one in drawn])
    return Ranking(_tau(first, second), low, high, len(first))


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
    first, truth_of_first = _checked(judged, truth)
    second, _ = _checked(other, truth)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(first), len(first)) for _ in range(resamples)]
    low, high = _interval([_tau(first[o], truth_of_first[o]) - _tau(second[o], truth_of_first[o]) for o in drawn])
    return Ranking(_tau(first, truth_of_first) - _tau(second, truth_of_first), low, high, len(first))


def _checked(judged: Sequence[float], truth: Sequence[float]) -> tuple[Floats, Floats]:
    first, second = np.asarray(judged, dtype=float), np.asarray(truth, dtype=float)
    if len(first) != len(second) or len(first) < FEWEST:
        raise ValueError(
            f"a ranking needs two judgements each of at least {FEWEST} students; found {len(first)} and {len(second)}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a ranking needs finite values; leave out the students that were not judged")
    return first, second


def _interval(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975)) if values else (np.nan, np.nan)
    return float(low), float(high)


def _tau(first: Floats, second: Floats) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(kendalltau(first, second).statistic)
