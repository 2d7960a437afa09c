"""How well one way of judging orders students, measured against another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau

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
    first, second = np.asarray(judged, dtype=float), np.asarray(truth, dtype=float)
    if len(first) != len(second) or len(first) < FEWEST:
        raise ValueError(
            f"a ranking needs two judgements each of at least {FEWEST} students; found {len(first)} and {len(second)}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("a ranking needs finite values; leave out the students that were not judged")
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(first), len(first)) for _ in range(resamples)]
    taus = [_tau(first[one], second[one]) for one in drawn]
    low, high = np.quantile(taus, (0.025, 0.975)) if taus else (np.nan, np.nan)
    return Ranking(_tau(first, second), float(low), float(high), len(first))


def _tau(
    first: np.ndarray[tuple[int], np.dtype[np.float64]], second: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(kendalltau(first, second).statistic)
