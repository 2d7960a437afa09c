"""When a search stops: at the first of its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from n2n.search.errors import SearchError

STALE = 8
"""Rollout batches in a row without a new student to judge, after which a stage ends: the policy repeats itself."""


@dataclass(frozen=True)
class Limits:
    """The limits of one stage.

    `evaluations` counts students that were really judged (repeats answered from the cache are free), `seconds` is wall
    time, None for no limit; `stale` is the number of rollout batches in a row that may bring nothing to judge.

    Raises:
        SearchError: a limit that is not positive.
    """

    evaluations: int
    seconds: float | None = None
    stale: int = STALE

    def __post_init__(self) -> None:
        if self.evaluations < 1 or self.stale < 1:
            raise SearchError(
                f"limits must be at least 1: evaluations={self.evaluations}, stale={self.stale}; allow more of them"
            )
        if self.seconds is not None and self.seconds < 0:
            raise SearchError(f"seconds={self.seconds} is negative; give a positive number, or None for no limit")


@dataclass
class Meter:
    """What a stage has spent so far, and whether it must stop."""

    limits: Limits
    clock: Callable[[], float] = time.perf_counter
    evaluations: int = 0
    hits: int = 0
    batches: int = 0
    stale: int = 0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Wall seconds since the stage began."""
        return self.clock() - self.started

    @property
    def left(self) -> int:
        """How many more students may be judged."""
        return self.limits.evaluations - self.evaluations

    def spend(self, *, judged: int, hits: int) -> None:
        """Counts one more batch."""
        self.evaluations += judged
        self.hits += hits
        self.batches += 1
        self.stale = 0 if judged else self.stale + 1

    def reached(self, reserve: float = 0.0) -> str:
        """The name of the first limit that is reached, or ""; `reserve` seconds are kept for what follows."""
        if self.left <= 0:
            return "evaluations"
        if self.limits.seconds is not None and self.seconds + reserve >= self.limits.seconds:
            return "seconds"
        if self.stale >= self.limits.stale:
            return "repeats"
        return ""
